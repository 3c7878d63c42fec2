//! Containers, images, cgroups, volumes and logs of one node.
