/// Lets one fork of a parent go at a time; the others wait in order. The same for the ends of another host's clone, for
/// what is made and removed of a family's network, and for names that are given.
///
/// Orders: arm → commit of a parent against the next arm of the same one (Integration: two forks at once); the end of
/// another host's clone against a second call of its home (LabTests).
struct Turns {
  private var holders: Set<String> = []
  private var waiting: [String: [CheckedContinuation<Void, Never>]] = [:]

  /// True: it is the caller's turn at once.
  mutating func take(_ key: String) -> Bool { holders.insert(key).inserted }

  func isTaken(_ key: String) -> Bool { holders.contains(key) }

  mutating func wait(_ key: String, _ continuation: CheckedContinuation<Void, Never>) {
    waiting[key, default: []].append(continuation)
  }

  mutating func leave(_ key: String) {
    guard var queue = waiting[key], !queue.isEmpty else {
      holders.remove(key)
      return
    }
    let next = queue.removeFirst()
    waiting[key] = queue.isEmpty ? nil : queue
    next.resume()
  }
}

extension ForkService {
  /// Returns when it is the caller's turn, who gives it back with `turns.leave`.
  func takeTurn(_ key: String) async {
    // Nothing is awaited between the two: the turn might be given back meanwhile.
    if !turns.take(key) { await withCheckedContinuation { turns.wait(key, $0) } }
  }
}
