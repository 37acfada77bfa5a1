package vm

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/xtreemos/xos/test/vm/wire"
)

// processors of each machine: two, so that what runs at once runs at once.
const processors = 2

// slow is what a processor of QEMU's shall not have. Vector instructions beyond those that
// every amd64 has are, emulated, slower than what programs do without them, by half for
// SHA-256 and two thirds for Argon2. Those for AES go with them: where they are, programs
// take it that SSSE3 is there, too. The next three promise that repeated string
// instructions are fast: here they go byte by byte, and clearing memory by longer moves
// takes a fifth, an exec a tenth less. The rest have the kernel do more for each page and
// each copy from a program, and no test looks at it.
const slow = "ssse3 sse4.1 sse4.2 avx avx2 f16c fma sha-ni aes pclmulqdq vaes vpclmulqdq gfni erms fsrm fsrs la57 smap smep umip pku"

// plain is the processor without what is slow. An older QEMU does not know all names, and
// refuses one that it does not know.
func plain(ctx context.Context) (string, error) {
	help, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-cpu", "help").Output()
	if err != nil {
		return "", fmt.Errorf("asking QEMU which processors it has: %w", err)
	}
	known, cpu := strings.Fields(string(help)), "max"
	for _, flag := range strings.Fields(slow) {
		if slices.Contains(known, flag) {
			cpu += ",-" + flag
		}
	}
	return cpu, nil
}

// arguments is QEMU's command line: a PC with a disk, a network that leads
// nowhere, the agent's ports, a console into a file, and nothing else.
func arguments(dir, img, cpu string, cfg Config) []string {
	cmdline := []string{"root=/dev/vda rw console=ttyS0 loglevel=5 systemd.show_status=no systemd.tpm2_wait=0",
		// The processors have one clock. Debian 12's kernel takes them for two, and would ask
		// the HPET, a system call and a device for each look at the time.
		// To find out whether and how fast timers tick it waits for them, without rest, which
		// is slow where each look at the time leaves what is translated. Memory that it takes
		// for itself it would clear before it is written.
		"tsc=reliable hpet=disable no_timer_check init_on_alloc=0 mitigations=off random.trust_cpu=on net.ifnames=0", cfg.Append}
	args := []string{
		"-name", "xos-vm-" + cfg.Name,
		// Not KVM: where a machine is itself virtual QEMU may not survive it. Not a
		// thread for each processor: attaching and detaching programs has the kernel
		// change its own instructions, another processor may go on with those that
		// were translated before, and the kernel dies of a trap that it took away.
		"-machine", "pc", "-accel", "tcg,thread=single,tb-size=1024", "-cpu", cpu,
		"-smp", strconv.Itoa(processors), "-m", strconv.Itoa(cfg.Memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", filepath.Join(img, "vmlinuz."+string(cfg.Kernel)),
		"-initrd", filepath.Join(img, "initrd."+string(cfg.Kernel)),
		"-append", strings.TrimSpace(strings.Join(cmdline, " ")),
		// What is written goes to a file in TMPDIR that has no name.
		"-drive", "file=" + filepath.Join(img, "root.img") + ",if=virtio,format=raw,snapshot=on,cache=unsafe",
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
		"-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile=",
		"-serial", "file:" + filepath.Join(dir, "console.log"),
		"-device", fmt.Sprintf("virtio-serial-pci,max_ports=%d", wire.Ports+1),
	}
	if cfg.Counted {
		args = append(args, "-icount", "shift=0,sleep=on")
	}
	for i := range wire.Ports {
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=port%d,path=%s,server=on,wait=off", i, filepath.Join(dir, wire.PortName(i))),
			"-device", fmt.Sprintf("virtserialport,chardev=port%d,name=%s", i, wire.PortName(i)))
	}
	return args
}
