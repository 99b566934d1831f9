import Controller
import Testing

@Suite("Controller, call by call")
struct ControllerTests {
  private let call = BlockCall(BlockID(program: "/usr/bin/xz", symbol: "lzma_code"), sizeHint: 1000)

  private func times(totalUs: Double, runUs: Double) -> OffloadTimes {
    OffloadTimes(
      forwardUs: (totalUs - runUs) / 2, runUs: runUs, mergeUs: 10_000, totalUs: totalUs, bytesOut: 1 << 20,
      bytesHome: 1 << 18)
  }

  private func deadline(_ placement: Placement) -> UInt64? {
    if case .clone(let deadlineUs) = placement { deadlineUs } else { nil }
  }

  /// After three calls at home and as many as are wanted in clones, ten times as fast.
  private func experienced(offloads: Int = 3) -> Controller {
    var controller = Controller()
    for _ in 0..<3 { controller.record(call, .home(us: 20e6)) }
    for _ in 0..<offloads { controller.record(call, .returned(times(totalUs: 2e6, runUs: 1e6))) }
    controller.record(call, .home(us: 20e6))
    return controller
  }

  @Test func firstCallIsAtHome() {
    var controller = Controller()
    #expect(controller.decide(call, nowUs: 0) == .home)
  }

  @Test func firstTrialCostsNoMoreThanTheConstant() throws {
    var controller = Controller()
    controller.record(call, .home(us: 30e6))
    let deadlineUs = try #require(deadline(controller.decide(call, nowUs: 7)))
    #expect(deadlineUs > 7)
    #expect(Double(deadlineUs - 7) <= controller.limits.trialUs + 0.05 * 30e6)
  }

  @Test func shortCallsStayAtHome() {
    var controller = Controller()
    for _ in 0..<10_000 {
      #expect(controller.decide(call, nowUs: 0) == .home)
      controller.record(call, .home(us: 15e3))
    }
  }

  @Test func whatPaysIsOffloaded() {
    var controller = experienced()
    #expect(deadline(controller.decide(call, nowUs: 0)) != nil)
  }

  @Test func whatDoesNotPayStaysAtHome() {
    var controller = Controller()
    for _ in 0..<3 { controller.record(call, .home(us: 1e6)) }
    controller.record(call, .returned(times(totalUs: 3e6, runUs: 1e6)))
    #expect(controller.decide(call, nowUs: 0) == .home)
  }

  /// No deadline lies beyond what the account affords, and an empty account keeps calls at home.
  @Test func lossesAreBoundedByTheAccount() {
    var controller = experienced()
    var lostUs = 0.0
    let accountUs = controller.accountUs(of: call.block)
    for _ in 0..<1000 {
      guard let deadlineUs = deadline(controller.decide(call, nowUs: 0)) else { continue }
      #expect(Double(deadlineUs) <= controller.accountUs(of: call.block))
      lostUs += Double(deadlineUs)
      controller.record(call, .gaveUp(afterUs: Double(deadlineUs)))
      // No call at home follows, so nothing is earned.
    }
    #expect(lostUs > 0)
    #expect(lostUs <= accountUs)
    #expect(controller.decide(call, nowUs: 0) == .home)
  }

  @Test func failuresInARowAreTriedMoreAndMoreRarely() {
    var controller = experienced(offloads: 20)
    var attempts: [Int] = []
    for number in 0..<2000 {
      if deadline(controller.decide(call, nowUs: 0)) != nil {
        attempts.append(number)
        controller.record(call, .failed(afterUs: 300e3))
      }
      controller.record(call, .home(us: 20e6))
    }
    #expect(attempts.count >= 3)
    #expect(attempts.count < 200)
    // And when the clone is there again it is used.
    for _ in 0..<5000 {
      if deadline(controller.decide(call, nowUs: 0)) != nil {
        controller.record(call, .returned(times(totalUs: 2e6, runUs: 1e6)))
      } else {
        controller.record(call, .home(us: 20e6))
      }
    }
    #expect(deadline(controller.decide(call, nowUs: 0)) != nil)
  }

  /// The same bytes take 40 s on one link and a second on another.
  @Test func aSlowLinkIsForeseen() throws {
    let fast = try #require(CloneLink(roundTripUs: 1000, bytesPerSecond: 100e6))
    let slow = try #require(CloneLink(roundTripUs: 400e3, bytesPerSecond: 30e3))
    var controller = experienced(offloads: 0)
    for _ in 0..<3 { controller.record(call, .returned(times(totalUs: 2e6, runUs: 1e6)), link: fast) }
    controller.record(call, .home(us: 20e6))
    #expect(deadline(controller.decide(call, link: fast, nowUs: 0)) != nil)
    #expect(controller.decide(call, link: slow, nowUs: 0) == .home)
    #expect(deadline(controller.decide(call, link: fast, nowUs: 0)) != nil)
  }

  /// Of two sizes of one block the small stay at home and the large go.
  @Test func sizesAreLearnedApart() {
    let small = BlockCall(call.block, sizeHint: 10)
    var controller = Controller()
    for _ in 0..<5 {
      controller.record(small, .home(us: 300e3))
      controller.record(call, .home(us: 30e6))
      controller.record(call, .returned(times(totalUs: 3e6, runUs: 2e6)))
      controller.record(small, .returned(times(totalUs: 1.2e6, runUs: 0.02e6)))
    }
    #expect(controller.decide(small, nowUs: 0) == .home)
    #expect(deadline(controller.decide(call, nowUs: 0)) != nil)
  }

  /// What comes home at its first system call has gained nothing, however little time it took.
  @Test func comingHomeEarlyDoesNotPay() {
    var controller = Controller()
    var offloads = 0
    for _ in 0..<200 {
      if deadline(controller.decide(call, nowUs: 0)) != nil {
        offloads += 1
        controller.record(call, .cameHomeEarly(times(totalUs: 500e3, runUs: 1e3)))
      }
      controller.record(call, .home(us: 5e6))
    }
    #expect(offloads > 0)
    #expect(Double(offloads) * 500e3 <= controller.limits.trialUs + 0.05 * 200 * 5e6)
  }

  @Test func whatOthersHaveOffloadedIsLearntAndNotPaidFor() {
    let call = BlockCall(BlockID(program: "p", symbol: "f"))
    let times = OffloadTimes(forwardUs: 5e6, runUs: 1e6, mergeUs: 1e6, totalUs: 40e6)
    for outcome in [CallOutcome.returned(times), .failed(afterUs: 40e6), .gaveUp(afterUs: 40e6)] {
      var (told, own) = (Controller(), Controller())
      told.record(call, .home(us: 20e6))
      own.record(call, .home(us: 20e6))
      let before = told.accountUs(of: call.block)
      told.record(call, outcome, wasDecided: false)
      own.record(call, outcome)
      #expect(told.accountUs(of: call.block) == before && own.accountUs(of: call.block) < before - 20e6)
    }
  }

  @Test func linksWithoutARateAreNone() {
    #expect(CloneLink(roundTripUs: 1, bytesPerSecond: 0) == nil)
    #expect(CloneLink(roundTripUs: -1, bytesPerSecond: 1) == nil)
    #expect(CloneLink(roundTripUs: .nan, bytesPerSecond: 1) == nil)
  }

  /// A clock that went back, or a caller's fault, harms nothing that was learned.
  @Test func timesThatCannotBeAreNotTaken() {
    var controller = experienced()
    let before = controller.profile
    for us in [-1, .nan, .infinity] {
      controller.record(call, .home(us: us))
      controller.record(call, .failed(afterUs: us))
      controller.record(call, .gaveUp(afterUs: us))
      controller.record(call, .returned(times(totalUs: us, runUs: 1)))
      controller.record(call, .cameHomeEarly(times(totalUs: 1, runUs: us)))
    }
    #expect(controller.profile == before)
  }
}
