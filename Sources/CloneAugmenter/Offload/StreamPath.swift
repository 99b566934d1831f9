import Glibc

/// FIFOs of the same name at home and in each clone, of which the clone's are used: what a block left behind comes out of one,
/// what the program has changed since goes into the other, if the clone is kept.
struct StreamPath {
  let result: String
  let changes: String

  init(process: Int32) {
    result = "/run/sf-offload.\(process)"
    changes = result + ".changes"
  }

  func make() throws(SystemError) {
    remove()
    for path in [result, changes] where mkfifo(path, 0o600) != 0 { throw SystemError("make \(path)") }
  }

  func remove() {
    unlink(result)
    unlink(changes)
  }

  /// In a clone that gives up: whoever waits for a result reads its end. Until the clone is ended.
  func hangUp() -> Never {
    while true {
      let stream = open(result, O_WRONLY | O_CLOEXEC)
      if stream < 0 { sleep(1) } else { close(stream) }
    }
  }
}
