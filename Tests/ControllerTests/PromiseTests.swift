import Controller
import Testing

/// Whole programs in worlds made from seeds. A failure names its seed, which gives the same world again.
@Suite("Controller in simulated worlds")
struct PromiseTests {
  /// 5 % above home, what the first trials of each block may cost, and one merge that took longer than was foreseen.
  @Test func neverMuchSlowerThanHome() {
    var offloaded = 0
    var drifted = 0
    for seed in 0..<1000 {
      var world = World(seed: UInt64(seed))
      var controller = Controller()
      let trialsUs = Double(world.blocks.count) * controller.limits.trialUs
      let run = WorldRun(&world, &controller)
      let mostUs = 1.05 * run.homeUs + trialsUs + run.mergeUsMax
      #expect(run.totalUs <= mostUs, "world \(seed): \(run.totalUs) µs, \(run.homeUs) at home")
      offloaded += run.offloaded
      drifted += world.changes > 0 ? 1 : 0
    }
    // Not by staying at home.
    #expect(offloaded > 100_000)
    #expect(drifted > 300)
  }

  /// The same with a profile that lasts from one short run of the program to the next: over all runs together.
  @Test func neverMuchSlowerOverManyRuns() throws {
    for seed in 5000..<5150 {
      var world = World(seed: UInt64(seed))
      world.calls = min(world.calls, 30)
      var profile: [UInt8]?
      var runs: [WorldRun] = []
      for _ in 0..<10 {
        var controller = try profile.map { try #require(Controller(profile: $0)) } ?? Controller()
        runs.append(WorldRun(&world, &controller))
        profile = controller.profile
      }
      let homeUs = runs.map(\.homeUs).reduce(0, +)
      let trialsUs = Double(world.blocks.count) * ControllerLimits().trialUs
      let mostUs = 1.05 * homeUs + trialsUs + runs.map(\.mergeUsMax).max()!
      #expect(runs.map(\.totalUs).reduce(0, +) <= mostUs, "world \(seed)")
    }
  }

  @Test func mostOfTheSpeedUpWhereThereIsMuch() {
    var worlds = 0
    for seed in 10_000..<10_400 {
      var world = World.steady(seed: UInt64(seed))
      var controller = Controller()
      let run = WorldRun(&world, &controller)
      guard run.bestSpeedUp >= 3 else { continue }
      worlds += 1
      #expect(run.speedUp >= 0.8 * run.bestSpeedUp, "world \(seed): \(run.speedUp) of \(run.bestSpeedUp)")
    }
    #expect(worlds > 100)
  }

  /// What was learned in one run of a program is there in the next.
  @Test func laterRunsAreFastFromTheirFirstCall() throws {
    var worlds = 0
    for seed in 20_000..<20_400 {
      var world = World.steady(seed: UInt64(seed))
      var controller = Controller()
      _ = WorldRun(&world, &controller)
      var later = try #require(Controller(profile: controller.profile))
      world.calls = 20 * world.blocks.count
      let run = WorldRun(&world, &later)
      guard run.bestSpeedUp >= 3 else { continue }
      worlds += 1
      #expect(run.speedUp >= 0.8 * run.bestSpeedUp, "world \(seed): \(run.speedUp) of \(run.bestSpeedUp)")
    }
    #expect(worlds > 100)
  }
}
