package client_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/raft-chat/raft-chat/client"
)

// The examples run against a stand-in for a cluster; an application names its
// own nodes.
func Example() {
	cluster := startFake(3)
	defer cluster.close()

	c, err := client.New(client.Options{Endpoints: cluster.endpoints(), User: "ann"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	m, err := c.Send(ctx, "general", "hello")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Room, m.Seq)
	// Output: general 1
}

func ExampleClient_Send() {
	cluster := startFake(1)
	defer cluster.close()
	c := cluster.client()
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	// An id that the application keeps makes a send repeatable, even after a
	// restart of the application.
	for range 2 {
		m, err := c.Send(ctx, "orders", "order 4711 shipped", client.WithClientMessageID("order-4711"))
		var unknown *client.OutcomeUnknownError
		switch {
		case errors.As(err, &unknown):
			fmt.Println("try again later with", unknown.ClientMessageID)
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println("stored as", m.Seq)
		}
	}
	// Output:
	// stored as 1
	// stored as 1
}

func ExampleClient_Subscribe() {
	cluster := startFake(3)
	defer cluster.close()
	c := cluster.client()
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, text := range []string{"one", "two", "three"} {
		if _, err := c.Send(ctx, "general", text); err != nil {
			fmt.Println(err)
		}
	}

	for event, err := range c.Subscribe(ctx, client.SubscribeOptions{Rooms: []string{"general"}, Since: "all"}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		switch e := event.(type) {
		case *client.Message:
			fmt.Printf("%d %s: %s\n", e.Seq, e.User, e.Text)
			if e.Text == "three" {
				return
			}
		case *client.Gap:
			fmt.Printf("messages %d to %d are gone\n", e.FirstSeq, e.LastSeq)
		}
	}
	// Output:
	// 1 ann: one
	// 2 ann: two
	// 3 ann: three
}

func ExampleClient_History() {
	cluster := startFake(1)
	defer cluster.close()
	c := cluster.client()
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for i := range 5 {
		if _, err := c.Send(ctx, "general", fmt.Sprint("message ", i+1)); err != nil {
			fmt.Println(err)
		}
	}

	// From the newest page back to the beginning.
	page := client.Page{Limit: 2}
	for {
		h, err := c.History(ctx, "general", page)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, m := range h.Messages {
			fmt.Println(m.Seq, m.Text)
		}
		if !h.Earlier {
			return
		}
		page.Before = &h.Messages[0].Seq
	}
	// Output:
	// 4 message 4
	// 5 message 5
	// 2 message 2
	// 3 message 3
	// 1 message 1
}
