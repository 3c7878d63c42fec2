//! Each fault of the harness, seen to bite: on a small program or on packets rather than on a whole cluster. They need root, a
//! kernel with TUN, loop and seccomp notification, and Debian's libfaketime and etcd-server; they fail where one is missing.

mod calls;
mod clock;
mod disk;
mod members;
mod nemesis;
mod network;
