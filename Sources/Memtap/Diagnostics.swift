import Glibc

/// One line on standard error, which the daemon keeps as the pager's log. For what nobody asked and who runs the host
/// should know.
func tell(_ sentence: String) {
  let line = "sf-memtap: \(sentence)\n"
  _ = line.utf8.withContiguousStorageIfAvailable { write(STDERR_FILENO, $0.baseAddress, $0.count) }
}
