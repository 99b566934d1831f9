import Controller
import Testing

@Suite("A fork for each call, or a clone that is kept")
struct CloneChoiceTests {
  @Test("A clone is kept until that is known to cost more than forks, and tried again after some forks")
  func learns() {
    var choice = CloneChoice()
    #expect(choice.keeps)
    choice.record(.fork, overheadUs: 1_000_000)
    #expect(choice.keeps)
    choice.record(.kept, overheadUs: 3_000_000)
    #expect(!choice.keeps)
    for fork in 1...16 {
      #expect(!choice.keeps, "fork \(fork)")
      choice.record(.fork, overheadUs: 1_000_000)
    }
    #expect(choice.keeps)
    // By now little goes to it; what it was before does not count.
    choice.record(.kept, overheadUs: 100_000)
    #expect(choice.keeps)
    choice.record(.kept, overheadUs: 4_000_000)
    #expect(!choice.keeps)
  }

  @Test("Where a kept clone costs less it stays, and one slow call does not end that")
  func stays() {
    var choice = CloneChoice()
    choice.record(.fork, overheadUs: 1_000_000)
    for _ in 1...20 {
      choice.record(.kept, overheadUs: 50_000)
      #expect(choice.keeps)
    }
    choice.record(.kept, overheadUs: 2_000_000)
    #expect(choice.keeps)
    for _ in 1...3 { choice.record(.kept, overheadUs: 2_000_000) }
    #expect(!choice.keeps)
  }
}
