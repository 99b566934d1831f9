# Debian packages without installing them: found by apt, kept as files in a cache, unpacked into a tree.
# Sourced by images/build, which sets $debs (the cache), $work (a directory of this build) and the array with.

# What no guest program needs at run time. Packages that were asked for by name with --with are unpacked whole.
left_out=(--exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale'
  --exclude='./usr/share/info' --exclude='./usr/share/lintian' --exclude='./usr/share/bug'
  --exclude='./usr/share/bash-completion' --exclude='./usr/lib/x86_64-linux-gnu/gconv')

# closure PACKAGE... : the packages with all they depend on, as on an empty machine, "name version" a line.
closure() {
  apt-get install --simulate --no-install-recommends -o Dir::State::status=/dev/null "$@" 2>"$work/apt.err" |
    sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1 \2/p' | grep . ||
    fail "no such packages: $*" "$(tail -n 1 "$work/apt.err") Run apt-get update, or name others."
}

# deb_file NAME VERSION : where its archive is in the cache.
deb_file() { printf '%s/%s_%s.deb' "$debs" "$1" "${2//:/%3a}"; }

# fetch NAME VERSION : the archive is in the cache when this returns; no network if it was before.
fetch() {
  local file
  file=$(deb_file "$1" "$2")
  [[ -s $file ]] && return
  mkdir -p "$debs" "$work/download"
  (cd "$work/download" && apt-get download -qq -o APT::Sandbox::User=root "$1=$2") >&2 ||
    fail "cannot download $1 $2" "Is a Debian mirror reachable? Archives are kept in $debs."
  mv "$work/download/$1"_*.deb "$file"
}

# merged_tree DIR : an empty tree in which /bin, /sbin, /lib and /lib64 are links into /usr, as Debian has it.
merged_tree() {
  local name
  for name in bin sbin lib lib64; do
    mkdir -p "$1/usr/$name"
    ln -sfn "usr/$name" "$1/$name"
  done
}

# unpack FILE DIR [TAR-OPTION...] : a package's files into a merged tree.
unpack() {
  local file=$1 dir=$2
  shift 2
  dpkg-deb --fsys-tarfile "$file" |
    tar -x -C "$dir" --keep-directory-symlink --no-same-owner "$@"
}

# needed_libraries : names of the shared libraries (the loader too) that the ELF files named on standard input,
# NUL-terminated, ask for.
needed_libraries() {
  # readelf complains of every script and data file among them.
  { xargs -0 --no-run-if-empty readelf -d -l 2>/dev/null || true; } |
    sed -n -e 's/.*(NEEDED).*\[\(.*\)\]/\1/p' -e 's/.*program interpreter: .*\/\(.*\)\]/\1/p' | sort -u
}

# install_packages DIR PACKAGE... : the packages whole, and of all that they depend on the shared libraries that
# their programs ask for. Interpreters of scripts are not libraries: name their packages.
# What was used is added to $work/packages.
install_packages() {
  local dir=$1 name version options
  shift
  closure "$@" >"$work/closure"
  while read -r name version; do
    fetch "$name" "$version"
    if [[ " $* " == *" $name "* ]]; then
      [[ " ${with[*]:-} " == *" $name "* ]] && options=() || options=("${left_out[@]}")
      unpack "$(deb_file "$name" "$version")" "$dir" "${options[@]}"
      echo "$name $version" >>"$work/packages"
    elif [[ $name == *lib* ]]; then # zlib1g too
      merged_tree "$work/libraries/$name"
      unpack "$(deb_file "$name" "$version")" "$work/libraries/$name" --exclude=./usr/share
    fi
  done <"$work/closure"
  [[ ! -d $work/libraries ]] || install_libraries "$dir"
}

# install_libraries DIR : out of $work/libraries, what DIR's programs need and DIR has not, and what that needs.
install_libraries() {
  local dir=$1 path name package
  local -A present=() offered=()
  while read -r name; do present[$name]=1; done < <(find "$dir" -name '*.so*' -printf '%f\n')
  while read -r path; do offered[${path##*/}]=$path; done < <(cd "$work/libraries" && find . -name '*.so*' ! -type d)
  find "$dir" -type f \( -perm -u+x -o -name '*.so*' \) -print0 >"$work/unread"
  while [[ -s $work/unread ]]; do
    needed_libraries <"$work/unread" >"$work/needed"
    : >"$work/unread"
    while read -r name; do
      path=${offered[$name]:-}
      [[ -z ${present[$name]:-} && -n $path ]] || continue
      present[$name]=1
      path=${path#./} package=${path%%/*}
      mkdir -p "$dir/$(dirname "${path#*/}")"
      cp -L "$work/libraries/$path" "$dir/${path#*/}"
      printf '%s\0' "$dir/${path#*/}" >>"$work/unread"
      grep "^$package " "$work/closure" >>"$work/packages"
    done <"$work/needed"
  done
}
