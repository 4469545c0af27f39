// Package loadkit is the closed-loop load generator that the peers' native clients share.
//
// It speaks the protocol of bench/load.py: one JSON specification on standard input, then events
// as JSON lines on standard output ("ready", "begin", "end", "done" or "failed"), and the
// latencies as little-endian uint32 microseconds in the file that the specification names.
package loadkit

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Specification says what to do. Times are in seconds.
type Specification struct {
	Workload    string   `json:"workload"`
	Addresses   []string `json:"addresses"`
	Connections int      `json:"connections"`
	WarmupS     float64  `json:"warmup_s"`
	SecondsS    float64  `json:"seconds"`
	ValueBytes  int      `json:"value_bytes"`
	Prefix      string   `json:"prefix"`
	SamplesPath string   `json:"samples_path"`
	CA          string   `json:"ca"`
	Certificate string   `json:"certificate"`
	Key         string   `json:"key"`
}

// Client is one connection with one request in flight at a time.
type Client interface {
	// Put writes one key durably. It returns how often it had to be tried again.
	Put(ctx context.Context, key string, value []byte) (retries int, err error)
	Close()
}

// Target opens connections to one system.
type Target interface {
	// Prepare makes what the workload needs (a table), once.
	Prepare(ctx context.Context, s *Specification) error
	Open(ctx context.Context, s *Specification, worker int) (Client, error)
	// Count reads back how many keys with the prefix are there.
	Count(ctx context.Context, s *Specification) (int64, error)
}

type worker struct {
	samples      []uint32
	acknowledged int64
	retries      int64
	err          error
}

func emit(event string, fields map[string]any) {
	if fields == nil {
		fields = map[string]any{}
	}
	fields["event"] = event
	line, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime)
}

// Main runs the load that standard input specifies and exits.
func Main(target Target) {
	if err := run(target); err != nil {
		emit("failed", map[string]any{"message": err.Error()})
		os.Exit(1)
	}
}

func run(target Target) error {
	var specification Specification
	if err := json.NewDecoder(bufio.NewReader(os.Stdin)).Decode(&specification); err != nil {
		return fmt.Errorf("read the specification: %w", err)
	}
	s := &specification
	if s.Workload != "insert" {
		return fmt.Errorf("unknown workload %q", s.Workload)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := target.Prepare(ctx, s); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	clients := make([]Client, s.Connections)
	for i := range clients {
		client, err := target.Open(ctx, s, i)
		if err != nil {
			return fmt.Errorf("open connection %d: %w", i, err)
		}
		defer client.Close()
		clients[i] = client
	}
	emit("ready", nil)
	return measure(ctx, target, s, clients)
}

func measure(ctx context.Context, target Target, s *Specification, clients []Client) error {
	warmup := time.Duration(s.WarmupS * float64(time.Second))
	length := time.Duration(s.SecondsS * float64(time.Second))
	begin := time.Now().Add(warmup)
	end := begin.Add(length)
	workers := make([]worker, len(clients))
	var group sync.WaitGroup
	for i := range clients {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			work(ctx, s, i, clients[i], &workers[i], begin, end)
		}(i)
	}
	time.Sleep(time.Until(begin))
	cpuBegin := cpuSeconds()
	emit("begin", nil)
	time.Sleep(time.Until(end))
	cpu := cpuSeconds() - cpuBegin
	emit("end", nil)
	group.Wait()
	return report(ctx, target, s, workers, cpu)
}

// work counts an operation in the window when it ended in the window.
func work(ctx context.Context, s *Specification, number int, client Client, w *worker,
	begin, end time.Time) {
	value := make([]byte, s.ValueBytes)
	for i := range value {
		value[i] = byte('a' + i%26)
	}
	w.samples = make([]uint32, 0, 1<<16)
	started := time.Now()
	for sequence := 0; started.Before(end); sequence++ {
		key := fmt.Sprintf("%s-%03d-%08d", s.Prefix, number, sequence)
		retries, err := client.Put(ctx, key, value)
		if err != nil {
			w.err = fmt.Errorf("connection %d, operation %d: %w", number, sequence, err)
			return
		}
		finished := time.Now()
		w.acknowledged++
		if finished.After(begin) && finished.Before(end) {
			w.samples = append(w.samples, uint32(finished.Sub(started).Microseconds()))
			w.retries += int64(retries)
		}
		started = finished
	}
}

func report(ctx context.Context, target Target, s *Specification, workers []worker,
	cpu float64) error {
	var acknowledged, retries int64
	var problems []error
	file, err := os.Create(s.SamplesPath)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(file)
	for i := range workers {
		acknowledged += workers[i].acknowledged
		retries += workers[i].retries
		problems = append(problems, workers[i].err)
		if err := binary.Write(buffered, binary.LittleEndian, workers[i].samples); err != nil {
			return err
		}
	}
	if err := errors.Join(buffered.Flush(), file.Close()); err != nil {
		return err
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	found, err := target.Count(ctx, s)
	if err != nil {
		return fmt.Errorf("count: %w", err)
	}
	emit("done", map[string]any{
		"acknowledged": acknowledged, "found": found, "retries": retries, "cpu_s": cpu,
	})
	return nil
}
