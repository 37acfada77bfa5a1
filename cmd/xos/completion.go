package main

// completionRequests are the commands by which a shell's completion script asks
// what may stand where the cursor is.
var completionRequests = map[string]bool{"__complete": true, "__completeNoDesc": true}

// asSubcommand puts the subcommand that a short name stands for before its
// arguments, or after the shell's question about them.
func asSubcommand(sub string, args []string) []string {
	if len(args) > 0 && completionRequests[args[0]] {
		return append([]string{args[0], sub}, args[1:]...)
	}
	return append([]string{sub}, args...)
}
