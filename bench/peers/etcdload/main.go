// etcdload puts keys into etcd with its own Go client: one gRPC connection per worker, all to the
// leader, which is the best case for etcd (a follower would forward each put).
package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"raftdb.bench/peers/loadkit"
)

type target struct{ leader string }

type client struct{ kv *clientv3.Client }

func (t *target) open(s *loadkit.Specification, endpoints []string) (*clientv3.Client, error) {
	tls, err := loadkit.TLS(s.CA, s.Certificate, s.Key)
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: 5 * time.Second, TLS: tls, Logger: zap.NewNop(),
	})
}

// Prepare finds the leader.
func (t *target) Prepare(ctx context.Context, s *loadkit.Specification) error {
	kv, err := t.open(s, s.Addresses)
	if err != nil {
		return err
	}
	defer kv.Close()
	for _, endpoint := range s.Addresses {
		status, err := kv.Status(ctx, endpoint)
		if err != nil {
			return err
		}
		if status.Leader == status.Header.MemberId {
			t.leader = endpoint
			return nil
		}
	}
	return fmt.Errorf("no member of %v says that it leads", s.Addresses)
}

func (t *target) Open(_ context.Context, s *loadkit.Specification, _ int) (loadkit.Client, error) {
	kv, err := t.open(s, []string{t.leader})
	if err != nil {
		return nil, err
	}
	return &client{kv}, nil
}

func (t *target) Count(ctx context.Context, s *loadkit.Specification) (int64, error) {
	kv, err := t.open(s, []string{t.leader})
	if err != nil {
		return 0, err
	}
	defer kv.Close()
	answer, err := kv.Get(ctx, s.Prefix+"-", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return answer.Count, nil
}

func (c *client) Put(ctx context.Context, key string, value []byte) (int, error) {
	_, err := c.kv.Put(ctx, key, string(value))
	return 0, err
}

func (c *client) Close() { c.kv.Close() }

func main() { loadkit.Main(&target{}) }
