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

# install_kernel TREE VMLINUZ MODULE... : the kernel, its modules into the tree, and the list in the order of loading
# that the agent follows. Sets $kernel to the release.
install_kernel() {
  local tree=$1 vmlinuz=$2 package version modules listed= file
  shift 2
  package=$(kernel_package)
  version=$(closure "$package" | sed -n "s/^$package //p")
  fetch "$package" "$version"
  kernel=${package#linux-image-}
  mkdir -p "$work/kernel"
  dpkg-deb --fsys-tarfile "$(deb_file "$package" "$version")" | tar -x -C "$work/kernel"
  grep -q '^CONFIG_VMGENID=y' "$work/kernel/boot/config-$kernel" ||
    fail "$package has no VM-generation-ID driver" "Use a kernel with CONFIG_VMGENID=y."
  cp "$work/kernel/boot/vmlinuz-$kernel" "$vmlinuz"
  echo "$package $version" >>"$work/packages"
  modules=$work/kernel/lib/modules/$kernel
  mkdir -p "$tree/usr/lib/modules/$kernel" "$tree/usr/lib/snowflock"
  while read -r file; do
    mkdir -p "$tree/usr/lib/modules/$kernel/$(dirname "$file")"
    cp "$modules/$file" "$tree/usr/lib/modules/$kernel/$file"
    echo "/lib/modules/$kernel/$file" >>"$tree/usr/lib/snowflock/modules"
  done < <(with_dependencies "$@")
  cp "$modules"/modules.{order,builtin,builtin.modinfo} "$tree/usr/lib/modules/$kernel/"
  depmod -b "$tree" "$kernel"
}
