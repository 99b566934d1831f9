import GuestMemory
import Testing

@Suite struct PageBitmapTests {
  /// Against a plain set, from a printed seed.
  @Test func behavesLikeASet() {
    var generator = SystemRandomNumberGenerator()
    let seed = UInt64.random(in: 0 ..< .max, using: &generator)
    var state = seed
    func random(_ bound: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33) % bound
    }
    for _ in 0..<200 {
      let count = 1 + random(300)
      var bitmap = PageBitmap(pageCount: count)
      var other = PageBitmap(pageCount: count)
      var model: Set<Int> = []
      var otherModel: Set<Int> = []
      for _ in 0..<20 {
        let first = random(count)
        let range = first..<first + random(count - first + 1)
        switch random(4) {
        case 0:
          bitmap.insert(contentsOf: range)
          model.formUnion(range)
        case 1:
          bitmap.remove(contentsOf: range)
          model.subtract(range)
        case 2:
          other.insert(first)
          otherModel.insert(first)
        default:
          bitmap.formUnion(other, in: range)
          model.formUnion(otherModel.intersection(range))
        }
        #expect(bitmap.contains(contentsOf: range) == model.isSuperset(of: range), "seed \(seed)")
      }
      #expect((0..<count).filter { bitmap.contains($0) } == model.sorted(), "seed \(seed)")
      #expect(bitmap.count == model.count)
      #expect(bitmap.isEmpty == model.isEmpty)
      #expect(bitmap.runs.flatMap { Array($0) } == model.sorted(), "seed \(seed)")
      for (run, next) in zip(bitmap.runs, bitmap.runs.dropFirst()) {
        #expect(run.upperBound < next.lowerBound)
      }
    }
  }

  @Test func windowsAreAlignedAndEndWithTheRAM() {
    #expect(PageRange.window(around: 17, size: 16, end: 100) == 16..<32)
    #expect(PageRange.window(around: 99, size: 16, end: 100) == 96..<100)
    #expect(PageRange.window(around: 5, size: 1, end: 100) == 5..<6)
  }
}
