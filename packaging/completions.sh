#!/usr/bin/env bash
# Installs shell completions of xos and its short names.
# usage: completions.sh XOS DIRECTORY
set -euo pipefail
xos=$1 share=$2/usr/share
short="xsub xps xkill xwait xjob"
bash=$share/bash-completion/completions zsh=$share/zsh/vendor-completions fish=$share/fish/vendor_completions.d
mkdir -p "$bash" "$zsh" "$fish"

# Each shell looks for a file by the name of the command.
{
	"$xos" completion bash
	echo "complete -o default -F __start_xos $short"
} >"$bash/xos"
for n in $short; do ln -s xos "$bash/$n"; done
"$xos" completion zsh | sed "1s/.*/#compdef xos $short/; s/^compdef _xos xos\$/& $short/" >"$zsh/_xos"
"$xos" completion fish >"$fish/xos.fish"
for n in $short; do
	sed "s/complete -c xos /complete -c $n /; s/complete -k -c xos /complete -k -c $n /; s/\"xos \"/\"$n \"/" "$fish/xos.fish" >"$fish/$n.fish"
done
