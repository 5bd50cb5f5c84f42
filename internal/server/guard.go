package server

import (
	"net"
	"net/url"
	"strings"

	"github.com/raft-chat/raft-chat/internal/webguard"
)

// guards returns those of the listeners for clients and of the listener for
// peers. All names by which the operator made this node known count on each of
// them; clientURL is the one that others are told.
func (c *Config) guards(clientURL string) (clients, peers *webguard.Guard) {
	o := webguard.Options{AllowedHosts: c.AllowedHosts, Logger: c.Logger}
	for _, name := range []string{clientURL, c.AdvertiseClient} {
		o.Own = append(o.Own, strings.TrimRight(name, "/"))
	}
	o.Own = append(o.Own, c.AdvertiseGRPC, c.Listen, c.ListenPeer, c.ListenHealth, c.ListenGRPC)
	for _, p := range c.Cluster {
		if p.ID != c.ID {
			continue
		}
		o.Own = append(o.Own, p.GRPCAddr)
		// Its host only: no page comes from the listener of peers.
		if u, err := url.Parse(p.URL); err == nil {
			o.Own = append(o.Own, net.JoinHostPort(u.Hostname(), u.Port()))
		}
	}
	strict := o
	strict.Strict = true
	o.AllowedOrigins = c.AllowedOrigins
	return webguard.New(o), webguard.New(strict)
}

// checkGuards judges the lists of names that the guards are made of.
func (c *Config) checkGuards() error {
	for _, origin := range c.AllowedOrigins {
		if err := webguard.CheckOrigin(origin); err != nil {
			return &ConfigError{"allowed-origins", err.Error()}
		}
	}
	for _, host := range c.AllowedHosts {
		if err := webguard.CheckHost(host); err != nil {
			return &ConfigError{"allowed-hosts", err.Error()}
		}
	}
	return nil
}
