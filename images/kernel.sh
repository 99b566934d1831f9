# The guest's kernel and the modules an image asks for. Sourced by images/build.

# Debian's plain kernel: unlike the -cloud- one it has the VM-generation-ID driver, without which a clone cannot
# learn that it must reseed and is refused.
kernel_package() {
  apt-cache depends --important linux-image-amd64 2>/dev/null |
    sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1 | grep . ||
    fail "no kernel package" "Run apt-get update."
}

# with_dependencies MODULE... : file names below $modules, each after those it depends on.
with_dependencies() {
  local module file depends
  for module in "$@"; do
    [[ " $listed " == *" $module "* ]] && continue
    listed+=" $module"
    file=$(find "$modules" -name "${module//_/[-_]}.ko" -print -quit)
    [[ -n $file ]] || continue # built into the kernel
    depends=$(modinfo -F depends "$file")
    # shellcheck disable=SC2086
    with_dependencies ${depends//,/ }
    echo "${file#"$modules"/}"
  done
}

# uncompressed BZIMAGE FILE : the kernel proper as an ELF file, which QEMU starts at its PVH entry: under TCG that
# saves 4 s of unpacking. (It also leaves out the randomizing of the kernel's addresses, which clones share anyway.)
# A kernel that is packed otherwise is taken as it is.
uncompressed() {
  local offset
  offset=$(LC_ALL=C grep --only-matching --byte-offset --text --perl-regexp -m 1 '\xfd7zXZ\x00' "$1" | head -n 1 | cut -d: -f1)
  # xz finds more of the image behind the kernel and says so with its status.
  tail -c "+$((${offset:-0} + 1))" "$1" | xz --decompress --stdout -qq >"$work/vmlinux" || true
  if [[ $(head -c 4 "$work/vmlinux") == $'\x7fELF' ]] && strip --strip-all -o "$2" "$work/vmlinux" &&
    readelf --notes "$2" 2>/dev/null | grep -q Xen; then
    return
  fi
  cp "$1" "$2"
}

# Modules of hardware that no guest has: most of the package.
not_for_guests=(gpu media infiniband staging iio hwmon usb isdn mmc mtd pcmcia platform net/ethernet net/wireless
  net/can net/usb)

# prepare_kernel PACKAGE VERSION DIR : the archive's kernel and the modules that a guest may want, kept in the cache,
# since unpacking takes longer than all the rest of an image.
prepare_kernel() {
  local new=$work/kernel excluded=()
  fetch "$1" "$2"
  mkdir -p "$new"
  excluded=("${not_for_guests[@]/#/--exclude=*/kernel/drivers/}" '--exclude=*/kernel/sound')
  dpkg-deb --fsys-tarfile "$(deb_file "$1" "$2")" | tar -x -C "$new" "${excluded[@]}"
  grep -q '^CONFIG_VMGENID=y' "$new/boot/config-$kernel" ||
    fail "$1 has no VM-generation-ID driver" "Use a kernel with CONFIG_VMGENID=y."
  uncompressed "$new/boot/vmlinuz-$kernel" "$new/vmlinuz"
  mv "$new/lib/modules/$kernel" "$new/modules"
  rm -rf "${new:?}"/{boot,lib,usr} "$3"
  mv "$new" "$3"
}

# install_kernel TREE VMLINUZ MODULE... : the kernel, its modules into the tree, and the list in the order of loading
# that the agent follows. Sets $kernel to the release.
install_kernel() {
  local tree=$1 vmlinuz=$2 package version prepared modules listed= file
  shift 2
  package=$(kernel_package)
  version=$(closure "$package" | sed -n "s/^$package //p")
  kernel=${package#linux-image-}
  prepared=$debs/${package}_$version
  [[ -d $prepared ]] || prepare_kernel "$package" "$version" "$prepared"
  cp "$prepared/vmlinuz" "$vmlinuz"
  echo "$package $version" >>"$work/packages"
  modules=$prepared/modules
  mkdir -p "$tree/usr/lib/modules/$kernel" "$tree/usr/lib/snowflock"
  while read -r file; do
    mkdir -p "$tree/usr/lib/modules/$kernel/$(dirname "$file")"
    cp "$modules/$file" "$tree/usr/lib/modules/$kernel/$file"
    echo "/lib/modules/$kernel/$file" >>"$tree/usr/lib/snowflock/modules"
  done < <(with_dependencies "$@")
  cp "$modules"/modules.{order,builtin,builtin.modinfo} "$tree/usr/lib/modules/$kernel/"
  depmod -b "$tree" "$kernel"
}
