/// A queue in one array that grows by doubling and never shrinks.
struct Ring<Element: Sendable>: Sendable {
  private var storage: [Element?]
  private var head = 0
  private(set) var count = 0

  init(capacity: Int = 16) { storage = Array(repeating: nil, count: capacity) }

  var isEmpty: Bool { count == 0 }
  var first: Element? { count == 0 ? nil : storage[head] }

  mutating func append(_ element: Element) {
    if count == storage.count { grow() }
    var at = head + count
    if at >= storage.count { at -= storage.count }
    storage[at] = element
    count += 1
  }

  mutating func popFirst() -> Element? {
    guard count > 0 else { return nil }
    let element = storage[head]
    head = head + 1 == storage.count ? 0 : head + 1
    count -= 1
    return element
  }

  mutating func replaceFirst(_ element: Element) { if count > 0 { storage[head] = element } }

  private mutating func grow() {
    var larger = [Element?](repeating: nil, count: storage.count * 2)
    for index in 0..<count { larger[index] = storage[(head + index) % storage.count] }
    storage = larger
    head = 0
  }
}
