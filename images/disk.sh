# A root file system on a disk, without mounting anything. Sourced by images/build.

# make_disk TREE SIZE QCOW2 : an ext4 file system with the tree's files, owned by root, in a qcow2 file.
make_disk() {
  local raw=$work/disk.raw as_root=()
  for tool in mke2fs qemu-img; do
    command -v "$tool" >/dev/null || fail "$tool is missing" "Install e2fsprogs and qemu-utils."
  done
  truncate -s "$2" "$raw"
  ((EUID == 0)) || as_root=(unshare --map-root-user)
  # Inode tables and journal are made now: a guest's kernel would write them in the background, each clone's anew.
  "${as_root[@]}" mke2fs -q -t ext4 -b 4096 -m 0 -L root -J size=16 -E lazy_itable_init=0,lazy_journal_init=0 \
    -d "$1" "$raw" "$2" || fail "cannot make a file system of $2" "Is there room in $(dirname "$out")?"
  qemu-img convert -q -f raw -O qcow2 "$raw" "$3" ||
    fail "cannot make $3" "Is there room in $(dirname "$out")?"
  rm "$raw"
}

# boot_tree TREE BOOT : what the agent needs to come to the disk: kernel modules, and somewhere to mount it.
boot_tree() {
  merged_tree "$2"
  mkdir -p "$2"/{dev,proc,sys,run,tmp}
  cp -a "$1/usr/lib/modules" "$1/usr/lib/snowflock" "$2/usr/lib/"
}
