// Package threads has a program's threads made before they are needed.
package threads

import (
	"runtime"
	"sync"
)

// Reserve makes n threads that Go's scheduler keeps for good, some 10 KiB each, and uses
// when it needs one: for each call that waits in the kernel it does. A program that needs
// one and can have none, at its session's ceiling of processes for example, is ended by Go.
func Reserve(n int) {
	var made, given sync.WaitGroup
	made.Add(n)
	for range n {
		given.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			made.Done()
			made.Wait()
		})
	}
	given.Wait()
}
