//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// namespaces is where ip(8) keeps the names of network namespaces.
const namespaces = "/run/netns"

// host is a network namespace with one address and one disk.
type host struct {
	world *world
	id    int
	name  string
	addr  string
	mac   string
	disk  *disk

	// What its packet filter does with what arrives.
	cut  map[int]bool // hosts it hears nothing of
	loss int          // per cent of the packets of other hosts that vanish
	rate string       // bound on what each other host may send, as nft says it; "" for none
}

func newHost(ctx context.Context, w *world, id int, size diskSize) (*host, error) {
	return openHost(ctx, size, &host{world: w, id: id, addr: fmt.Sprint(subnet, 10+id), mac: fmt.Sprintf("02:00:00:00:77:%02x", id)})
}

func openHost(ctx context.Context, size diskSize, h *host) (*host, error) {
	h.name, h.cut = fmt.Sprint(prefix, "-", h.id), map[int]bool{}
	if err := h.plug(ctx); err != nil {
		return nil, err
	}
	var err error
	h.disk, err = newDisk(ctx, h.world.dir, h.id, size)
	return h, err
}

// plug gives the host a network stack and links it to the bridge, each time
// under the same hardware address: others go on using the one they know.
func (h *host) plug(ctx context.Context) error {
	return commands(ctx,
		"ip netns add "+h.name,
		"ip link add "+h.link()+" type veth peer name eth0 address "+h.mac+" netns "+h.name,
		"ip link set "+h.link()+" master "+bridge+" up",
		"ip -n "+h.name+" addr add "+h.addr+"/24 dev eth0",
		"ip -n "+h.name+" link set lo up",
		"ip -n "+h.name+" link set eth0 up")
}

// linked puts the cable in or out; the host keeps its network stack.
func (h *host) linked(ctx context.Context, is bool) error {
	state := "down"
	if is {
		state = "up"
	}
	return commands(ctx, "ip link set "+h.link()+" "+state)
}

// unplug takes the link away: nothing leaves the host from now on.
func (h *host) unplug(ctx context.Context) error { return commands(ctx, "ip link del "+h.link()) }

// replug makes a new network stack: what sockets of dead processes still had
// to send dies with the old one.
func (h *host) replug(ctx context.Context) error {
	if err := commands(ctx, "ip netns del "+h.name); err != nil {
		return err
	}
	if err := h.plug(ctx); err != nil {
		return err
	}
	return h.filter(ctx)
}

// link is the name of the host's link on the bridge's side.
func (h *host) link() string { return fmt.Sprint(prefix, "v", h.id) }

// inside is the command that runs args on the host. It becomes the program,
// so its process id is the program's.
func (h *host) inside(args ...string) []string {
	return append([]string{"nsenter", "--net=" + filepath.Join(namespaces, h.name), "--"}, args...)
}

// ruleset is what the host's packet filter is to be, in the words of nft.
func (h *host) ruleset() string {
	var b strings.Builder
	b.WriteString("flush ruleset\ntable inet faults {\n chain input {\n  type filter hook input priority 0; policy accept;\n")
	var cut []string
	for id, is := range h.cut {
		if is {
			cut = append(cut, fmt.Sprint(subnet, 10+id))
		}
	}
	slices.Sort(cut)
	if len(cut) > 0 {
		fmt.Fprintf(&b, "  ip saddr { %s } drop\n", strings.Join(cut, ", "))
	}
	// The clients sit on the bridge itself: their links stay whole.
	if h.loss > 0 {
		fmt.Fprintf(&b, "  ip saddr != %s numgen random mod 100 < %d drop\n", ownAddr, h.loss)
	}
	if h.rate != "" {
		fmt.Fprintf(&b, "  ip saddr != %s limit rate over %s drop\n", ownAddr, h.rate)
	}
	b.WriteString(" }\n}\n")
	return b.String()
}

// filter puts the rules into force, all at once.
func (h *host) filter(ctx context.Context) error {
	_, err := commandWith(ctx, h.ruleset(), h.inside("nft", "-f", "-")...)
	return err
}

// clearHosts removes namespaces, their processes and their links, by name.
func clearHosts(ctx context.Context) error {
	var errs []error
	entries, err := os.ReadDir(namespaces)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix+"-") {
			continue
		}
		pids, err := command(ctx, "ip", "netns", "pids", e.Name())
		errs = append(errs, err)
		for _, field := range strings.Fields(pids) {
			if pid, err := strconv.Atoi(field); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
			}
		}
		_, err = command(ctx, "ip", "netns", "del", e.Name())
		errs = append(errs, err)
	}
	// A pair of links goes with the namespace, but only some time after it.
	links, err := os.ReadDir("/sys/class/net")
	errs = append(errs, err)
	for _, l := range links {
		if strings.HasPrefix(l.Name(), prefix) {
			if _, err := command(ctx, "ip", "link", "del", l.Name()); err != nil && !gone(l.Name()) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func gone(link string) bool {
	_, err := os.Stat("/sys/class/net/" + link)
	return errors.Is(err, os.ErrNotExist)
}
