// rqliteload inserts rows into rqlite over its HTTP API: one kept-alive connection per worker, all
// to the leader (a follower would forward each write).
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"raftdb.bench/peers/loadkit"
)

const (
	schema = "CREATE TABLE IF NOT EXISTS bench (id INTEGER PRIMARY KEY, k TEXT NOT NULL, " +
		"v BLOB NOT NULL)"
	insert = "INSERT INTO bench (k, v) VALUES (?, ?)"
	count  = "SELECT count(*) FROM bench WHERE k >= ? AND k < ?"
)

type target struct{ leader string }

type client struct {
	http   *http.Client
	leader string
}

type answer struct {
	Results []struct {
		Error  string              `json:"error"`
		Values [][]json.RawMessage `json:"values"`
	} `json:"results"`
	Error string `json:"error"`
}

func newHTTP() *http.Client {
	return &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxConnsPerHost: 1, MaxIdleConnsPerHost: 1},
	}
}

func (c *client) post(ctx context.Context, path string, statement ...any) (*answer, error) {
	body, err := json.Marshal([]any{statement})
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, "POST", "http://"+c.leader+path,
		bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", response.Status, text)
	}
	var result answer
	if err := json.Unmarshal(text, &result); err != nil {
		return nil, fmt.Errorf("%w in %q", err, text)
	}
	if result.Error != "" || len(result.Results) != 1 || result.Results[0].Error != "" {
		return nil, fmt.Errorf("answer %q", text)
	}
	return &result, nil
}

// Prepare finds the leader and makes the table.
func (t *target) Prepare(ctx context.Context, s *loadkit.Specification) error {
	response, err := newHTTP().Get("http://" + s.Addresses[0] + "/nodes")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var nodes map[string]struct {
		APIAddress string `json:"api_addr"`
		Leader     bool   `json:"leader"`
		Voter      bool   `json:"voter"`
	}
	if err := json.NewDecoder(response.Body).Decode(&nodes); err != nil {
		return err
	}
	voters := 0
	for _, node := range nodes {
		if node.Leader {
			t.leader = node.APIAddress[len("http://"):]
		}
		if node.Voter {
			voters++
		}
	}
	if t.leader == "" || voters != 3 {
		return fmt.Errorf("no leader or not 3 voters among %v", nodes)
	}
	c := client{newHTTP(), t.leader}
	_, err = c.post(ctx, "/db/execute", schema)
	return err
}

func (t *target) Open(_ context.Context, _ *loadkit.Specification, _ int) (loadkit.Client, error) {
	return &client{newHTTP(), t.leader}, nil
}

func (t *target) Count(ctx context.Context, s *loadkit.Specification) (int64, error) {
	c := client{newHTTP(), t.leader}
	result, err := c.post(ctx, "/db/query?level=linearizable", count, s.Prefix+"-", s.Prefix+".")
	if err != nil {
		return 0, err
	}
	var found int64
	return found, json.Unmarshal(result.Results[0].Values[0][0], &found)
}

// Put sends the value as text: JSON has no bytes, and rqlite's form for a blob is an array of
// numbers, which would be unfair to it.
func (c *client) Put(ctx context.Context, key string, value []byte) (int, error) {
	_, err := c.post(ctx, "/db/execute", insert, key, string(value))
	return 0, err
}

func (c *client) Close() { c.http.CloseIdleConnections() }

func main() { loadkit.Main(&target{}) }
