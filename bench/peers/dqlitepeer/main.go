// dqlitepeer is one dqlite node ("serve") or the load on three of them ("load"), with go-dqlite,
// dqlite's own Go binding and database/sql driver.
package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/canonical/go-dqlite/app"
	"github.com/canonical/go-dqlite/client"
	dqlite "github.com/canonical/go-dqlite/driver"

	"raftdb.bench/peers/loadkit"
)

const (
	schema = "CREATE TABLE IF NOT EXISTS bench (id INTEGER PRIMARY KEY, k TEXT NOT NULL, " +
		"v BLOB NOT NULL)"
	insert = "INSERT INTO bench (k, v) VALUES (?, ?)"
	count  = "SELECT count(*) FROM bench WHERE k >= ? AND k < ?"
)

func serve(arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	address := flags.String("address", "", "HOST:PORT of this node")
	directory := flags.String("directory", "", "data directory of this node")
	join := flags.String("join", "", "HOST:PORT of a member; empty to found a cluster")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	options := []app.Option{
		app.WithAddress(*address),
		app.WithVoters(3),
		app.WithLogFunc(func(level client.LogLevel, format string, values ...interface{}) {
			fmt.Fprintf(os.Stderr, level.String()+": "+format+"\n", values...)
		}),
	}
	if *join != "" {
		options = append(options, app.WithCluster([]string{*join}))
	}
	node, err := app.New(*directory, options...)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := node.Ready(ctx); err != nil {
		return err
	}
	fmt.Println("ready")
	<-ctx.Done()
	return node.Close()
}

type target struct{ driver *dqlite.Driver }

type connection struct {
	raw       driver.Conn
	statement driver.StmtExecContext
	random    *rand.Rand
}

// checkVoters makes sure that three nodes vote: a joined node that only watches would make
// commits cheaper than they are.
func checkVoters(ctx context.Context, store client.NodeStore) error {
	leader, err := client.FindLeader(ctx, store)
	if err != nil {
		return err
	}
	defer leader.Close()
	nodes, err := leader.Cluster(ctx)
	if err != nil {
		return err
	}
	voters := 0
	for _, node := range nodes {
		if node.Role == client.Voter {
			voters++
		}
	}
	if voters != 3 {
		return fmt.Errorf("%d nodes vote, not 3: %v", voters, nodes)
	}
	return nil
}

func (t *target) Prepare(ctx context.Context, s *loadkit.Specification) error {
	store := client.NewInmemNodeStore()
	nodes := []client.NodeInfo{}
	for _, address := range s.Addresses {
		nodes = append(nodes, client.NodeInfo{Address: address})
	}
	if err := store.Set(ctx, nodes); err != nil {
		return err
	}
	if err := checkVoters(ctx, store); err != nil {
		return err
	}
	quiet := dqlite.WithLogFunc(func(client.LogLevel, string, ...interface{}) {})
	made, err := dqlite.New(store, quiet)
	if err != nil {
		return err
	}
	t.driver = made
	sql.Register("dqlite", t.driver)
	database, err := sql.Open("dqlite", "bench")
	if err != nil {
		return err
	}
	defer database.Close()
	_, err = database.ExecContext(ctx, schema)
	return err
}

func (t *target) Open(ctx context.Context, _ *loadkit.Specification, worker int) (
	loadkit.Client, error) {
	connector, err := t.driver.OpenConnector("bench")
	if err != nil {
		return nil, err
	}
	raw, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	prepared, err := raw.(driver.ConnPrepareContext).PrepareContext(ctx, insert)
	if err != nil {
		return nil, err
	}
	return &connection{
		raw: raw, statement: prepared.(driver.StmtExecContext),
		random: rand.New(rand.NewSource(int64(worker))),
	}, nil
}

func (t *target) Count(ctx context.Context, s *loadkit.Specification) (int64, error) {
	database, err := sql.Open("dqlite", "bench")
	if err != nil {
		return 0, err
	}
	defer database.Close()
	var found int64
	row := database.QueryRowContext(ctx, count, s.Prefix+"-", s.Prefix+".")
	return found, row.Scan(&found)
}

// busy says whether another connection was writing: dqlite answers at once, and waiting is the
// application's part.
func busy(err error) bool {
	var failure dqlite.Error
	return (errors.As(err, &failure) && failure.Code&0xff == dqlite.ErrBusy) ||
		strings.Contains(err.Error(), "database is locked") ||
		strings.Contains(err.Error(), "checkpoint in progress")
}

func (c *connection) Put(ctx context.Context, key string, value []byte) (int, error) {
	arguments := []driver.NamedValue{{Ordinal: 1, Value: key}, {Ordinal: 2, Value: value}}
	wait := time.Millisecond
	for retries := 0; ; retries++ {
		_, err := c.statement.ExecContext(ctx, arguments)
		if err == nil || !busy(err) {
			return retries, err
		}
		select {
		case <-ctx.Done():
			return retries, ctx.Err()
		case <-time.After(time.Duration(float64(wait) * (0.5 + c.random.Float64()))):
		}
		wait = min(wait*2, 32*time.Millisecond)
	}
}

func (c *connection) Close() { c.raw.Close() }

func main() {
	if len(os.Args) < 2 || (os.Args[1] != "serve" && os.Args[1] != "load") {
		fmt.Fprintln(os.Stderr, "use: dqlitepeer serve|load ...")
		os.Exit(2)
	}
	if os.Args[1] == "load" {
		loadkit.Main(&target{})
		return
	}
	if err := serve(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "dqlitepeer:", err)
		os.Exit(1)
	}
}
