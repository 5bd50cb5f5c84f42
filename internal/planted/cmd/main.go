// Command cmd plants every bug of internal/planted and prints, as Markdown,
// which check notices it and after how many seeds. It exits with 1 if one is
// not noticed.
//
//	go run ./internal/planted/cmd            all of them
//	go run ./internal/planted/cmd -bug dedup those whose names contain dedup
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/raft-chat/raft-chat/internal/planted"
)

func main() {
	name := flag.String("bug", "", "only those whose names contain this")
	seeds := flag.Int("seeds", 3000, "seeds to look for each, at most")
	flag.Parse()
	fmt.Println("| bug | what the code does then | noticed by | after seeds |")
	fmt.Println("|---|---|---|---|")
	missed := 0
	for _, b := range planted.Bugs() {
		if !strings.Contains(b.Name, *name) {
			continue
		}
		o, err := planted.Try(context.Background(), ".", b, *seeds)
		after := fmt.Sprint(o.Seeds)
		switch {
		case err != nil:
			fmt.Fprintln(os.Stderr, err)
			missed++
			continue
		case !o.Caught:
			missed++
			o.Check = "**nothing**"
		case o.Seeds == 0:
			after = "–"
		}
		fmt.Printf("| %s | %s | %s | %s |\n", b.Name, b.What, strings.ReplaceAll(o.Check, "|", `\|`), after)
	}
	if missed > 0 {
		os.Exit(1)
	}
}
