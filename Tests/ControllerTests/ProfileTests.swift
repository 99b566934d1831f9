import Controller
import Testing

@Suite("Profile of a controller")
struct ProfileTests {
  private func learned(seed: UInt64) -> (Controller, World) {
    var world = World(seed: seed)
    var controller = Controller()
    _ = WorldRun(&world, &controller)
    return (controller, world)
  }

  /// A controller that was saved and loaded decides as the one that was not.
  @Test func nothingIsLost() throws {
    for seed in UInt64(0)..<60 {
      let (controller, world) = learned(seed: seed)
      var (one, other) = (controller, try #require(Controller(profile: controller.profile)))
      #expect(other.profile == controller.profile)
      var (here, there) = (world, world)
      here.tellsLink = true
      there.tellsLink = true
      let (first, second) = (WorldRun(&here, &one), WorldRun(&there, &other))
      #expect(first.totalUs == second.totalUs)
      #expect(first.offloaded == second.offloaded)
    }
  }

  @Test func namesMayHoldAnything() throws {
    let names = ["", " ", "/usr/bin/a b", "μ%\n", "operator<<(std::ostream&)", "%", "%41"]
    var controller = Controller()
    for program in names {
      for symbol in names {
        controller.record(BlockCall(BlockID(program: program, symbol: symbol)), .home(us: 1e6))
      }
    }
    let loaded = try #require(Controller(profile: controller.profile))
    for program in names {
      for symbol in names {
        let block = BlockID(program: program, symbol: symbol)
        #expect(loaded.accountUs(of: block) == controller.accountUs(of: block))
        #expect(loaded.accountUs(of: block) > loaded.limits.trialUs)
      }
    }
  }

  @Test func damageIsSeen() {
    let (controller, _) = learned(seed: 3)
    let profile = controller.profile
    for length in 0..<profile.count {
      let isRefused = Controller(profile: Array(profile.prefix(length))) == nil
      #expect(isRefused, "\(length) bytes")
    }
    for bit in 0..<(8 * profile.count) {
      var damaged = profile
      damaged[bit / 8] ^= 1 << (bit % 8)
      let isRefused = Controller(profile: damaged) == nil
      #expect(isRefused, "bit \(bit)")
    }
    #expect(Controller(profile: profile + profile) == nil)
  }

  /// With the right checksum, and a word of a line another: refused, or of a kind that does no harm.
  @Test func whatNobodyWroteDoesNoHarm() {
    let (controller, world) = learned(seed: 3)
    let text = String(decoding: controller.profile, as: UTF8.self)
    let lines = text.split(separator: "\n").dropLast().map { $0.split(separator: " ").map(String.init) }
    var chance = Chance(seed: 1)
    let wrong = [
      "", "-1", "nan", "inf", "-inf", "1e300", "1e17", "0", "x", "99999999999999999999", "-0.5", "%zz",
    ]
    var taken = 0
    for _ in 0..<4000 {
      var changed = lines
      let line = Int(chance.next() % UInt64(lines.count))
      let word = Int(chance.next() % UInt64(lines[line].count))
      changed[line][word] = wrong[Int(chance.next() % UInt64(wrong.count))]
      if chance.happens(0.1) { changed.remove(at: line) }
      let body = changed.map { $0.joined(separator: " ") + "\n" }.joined()
      guard var loaded = Controller(profile: Array(body.utf8) + Self.trailer(of: body)) else { continue }
      taken += 1
      var short = world
      short.calls = 20
      let run = WorldRun(&short, &loaded)
      #expect(run.totalUs.isFinite)
    }
    #expect(taken > 100)
    #expect(taken < 3500)
  }

  @Test func otherVersionsAreNotRead() {
    let body = "snowfork-offload-profile 3\nbeside 0.0 0.0 0.0\n"
    #expect(Controller(profile: Array(body.utf8) + Self.trailer(of: body)) == nil)
    let known = "snowfork-offload-profile 2\nbeside 0.0 0.0 0.0\n"
    #expect(Controller(profile: Array(known.utf8) + Self.trailer(of: known)) != nil)
  }

  /// Of a device with very many programs those used last are kept, in a file of bounded size.
  @Test func oldBlocksAreForgotten() throws {
    var controller = Controller()
    for number in 0..<1000 {
      let call = BlockCall(BlockID(program: "/bin/\(number)", symbol: "f"), sizeHint: 5)
      _ = controller.decide(call, nowUs: 0)
      controller.record(call, .home(us: 1e6))
    }
    #expect(controller.profile.count < Controller.profileBytesMax)
    let loaded = try #require(Controller(profile: controller.profile))
    let trialUs = loaded.limits.trialUs
    #expect(loaded.accountUs(of: BlockID(program: "/bin/999", symbol: "f")) > trialUs)
    #expect(loaded.accountUs(of: BlockID(program: "/bin/0", symbol: "f")) == trialUs)
  }

  /// The last line of a profile with this body.
  private static func trailer(of body: String) -> [UInt8] {
    var sum: UInt32 = 0xffff_ffff
    for byte in body.utf8 {
      sum ^= UInt32(byte)
      for _ in 0..<8 { sum = sum & 1 == 1 ? (sum >> 1) ^ 0xedb8_8320 : sum >> 1 }
    }
    let digits = String(~sum, radix: 16)
    return Array("crc32 \(String(repeating: "0", count: 8 - digits.count))\(digits)\n".utf8)
  }
}
