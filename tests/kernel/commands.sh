# commands.sh - some seventy commands that make calls of many kinds. $1: a folder, $2: a file of lines
ls -la $1
cat $2 | sort | uniq -c | head -2
cp $2 $1/copy
mv $1/copy $1/moved
ln $1/moved $1/hard
ln -s $1/moved $1/soft
readlink $1/soft
stat $1/moved
chmod 600 $1/moved
chown 0:0 $1/moved
touch -d @5 $1/moved
mkdir -p $1/a/b/c
rmdir $1/a/b/c
find $1 -type f
grep -c root $2
wc -l $2
head -c 10 $2
tail -n 1 $2
cut -d: -f1 $2
dd if=/dev/zero of=$1/zero bs=512 count=2
truncate -s 5 $1/zero
fallocate -l 100 $1/room
sync $1/zero
df $1
du $1
tar cf $1/x.tar $1/moved
tar xf $1/x.tar -C $1
gzip -kf $1/zero
gzip -dc $1/zero.gz
sha256sum $1/zero
cmp $1/zero $1/zero
env true; printenv PATH; date; uname -a; id; nproc; sleep 0.01; timeout 1 true; nice true; sh -c 'kill -0 $$; ulimit -n; umask'
sh -c 'true & wait; (exit 3); trap : USR1; kill -USR1 $$'
mkfifo $1/fifo
rm $1/fifo $1/hard
python3 -c 'import socket as s; a = s.socketpair(); s.send_fds(a[0], [b"x"], [0]); s.recv_fds(a[1], 1, 1)'
python3 -c 'import select as s; p = s.poll(); p.register(0); p.poll(0); e = s.epoll(); e.register(0) if 0 else e.poll(0)'
python3 -c 'import os, resource as r; r.getrlimit(r.RLIMIT_CPU); os.sched_getaffinity(0); os.getpriority(0, 0); os.times()'
python3 -c 'import mmap; m = mmap.mmap(-1, 4096); m.flush(); m.close()'; ip -V; mount -V; true; false; echo done; pwd
