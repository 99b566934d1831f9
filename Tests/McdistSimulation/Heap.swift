import Mcdist

extension SplitMix {
  /// 0 ..< 1
  mutating func unit() -> Double { Double(next() >> 11) / Double(1 << 53) }
}

/// A binary heap by time, first in first out among equals.
struct Heap<Element> {
  private var items: [(time: UInt64, order: UInt64, element: Element)] = []
  private var order: UInt64 = 0

  mutating func push(_ time: UInt64, _ element: Element) {
    order += 1
    items.append((time, order, element))
    var at = items.count - 1
    while at > 0, isBefore(at, (at - 1) / 2) {
      items.swapAt(at, (at - 1) / 2)
      at = (at - 1) / 2
    }
  }

  mutating func pop() -> (UInt64, Element)? {
    guard let first = items.first else { return nil }
    let last = items.removeLast()
    if !items.isEmpty {
      items[0] = last
      var at = 0
      while true {
        var least = at
        for child in [2 * at + 1, 2 * at + 2] where child < items.count && isBefore(child, least) {
          least = child
        }
        if least == at { break }
        items.swapAt(at, least)
        at = least
      }
    }
    return (first.time, first.element)
  }

  private func isBefore(_ left: Int, _ right: Int) -> Bool {
    (items[left].time, items[left].order) < (items[right].time, items[right].order)
  }
}
