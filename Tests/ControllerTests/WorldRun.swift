import Controller

/// A program's run in a world, with what it would have taken otherwise. Times in µs.
struct WorldRun {
  var homeUs = 0.0
  var totalUs = 0.0
  /// With the better place chosen for each call beforehand.
  var bestUs = 0.0
  var offloaded = 0
  var calls = 0
  /// The longest merge that ended after its deadline's call: what the account cannot foresee.
  var mergeUsMax = 0.0

  var overrun: Double { totalUs / homeUs }
  var bestSpeedUp: Double { homeUs / bestUs }
  var speedUp: Double { homeUs / totalUs }

  private var nowUs: UInt64 = 1_000_000

  init(_ world: inout World, _ controller: inout Controller) {
    for _ in 0..<world.calls {
      let call = world.next()
      let placement = controller.decide(call.call, link: world.link, nowUs: nowUs)
      let us = Self.take(call, placement, nowUs, &controller, world.link)
      if case .clone = placement { offloaded += 1 }
      calls += 1
      mergeUsMax = max(mergeUsMax, call.times.mergeUs)
      nowUs += UInt64(us)
      totalUs += us
      homeUs += call.homeUs
      bestUs += call.end == .returns ? min(call.homeUs, call.times.totalUs) : call.homeUs
    }
  }

  /// What the call takes, as the augmenter does it.
  static func take(
    _ call: World.Call, _ placement: Placement, _ nowUs: UInt64, _ controller: inout Controller,
    _ link: CloneLink?
  ) -> Double {
    var lostUs = 0.0
    if case .clone(let deadlineUs) = placement {
      let affordedUs = Double(deadlineUs - nowUs)
      let hereUs = call.times.totalUs - call.times.mergeUs
      if call.end == .refused && call.failureUs <= affordedUs {
        lostUs = call.failureUs
        controller.record(call.call, .failed(afterUs: lostUs), link: link)
      } else if call.end == .hangs || call.end == .refused || hereUs > affordedUs {
        lostUs = affordedUs + 500
        controller.record(call.call, .gaveUp(afterUs: lostUs), link: link)
      } else if call.end == .comesHomeEarly {
        controller.record(call.call, .cameHomeEarly(call.times), link: link)
        // A clone has done its share of the block.
        let share = min(call.times.runUs / max(call.homeUs, 1), 1)
        return call.times.totalUs + call.homeUs * (1 - share)
      } else {
        controller.record(call.call, .returned(call.times), link: link)
        return call.times.totalUs
      }
    }
    controller.record(call.call, .home(us: call.homeUs), link: link)
    return lostUs + call.homeUs
  }
}
