// Command etcd is upstream etcd. The API server needs 3.5.8 or newer to answer
// consistent lists from memory; distributions still ship older ones.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
