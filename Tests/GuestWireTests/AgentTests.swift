import Foundation
import GuestWire
import Testing

/// The real agent in a real VM, spoken to by the byte.
@Suite(.serialized, .timeLimit(.minutes(3))) struct AgentTests {
  @Test func answersAndForgivesAHostThatErrs() throws {
    let machine = try AgentMachine(image: try AgentMachine.image())
    let welcome = try machine.hello()
    #expect(welcome.epoch == 7 && welcome.vcpus == 1 && !welcome.bootID.isEmpty)
    #expect(
      try machine.run(["sh", "-c", "cat; echo err >&2; exit 3"], input: Array("in\n".utf8)) == (
        3, "in\nerr\n"
      ))
    #expect(try machine.run(["/nonexistent"]) == (-2, ""))
    #expect(try machine.run(["sh", "-c", "kill -9 $$"]).status == 128 + 9)
    let megabytes = [UInt8](repeating: 65, count: 2 << 20)
    #expect(try machine.run(["wc", "-c"], input: megabytes).output == "\(megabytes.count)\n")
    #expect(
      try machine.run(["head", "-c", "\(megabytes.count)", "/dev/zero"]).output.utf8.count == megabytes.count)
    #expect(try machine.run(["sh", "-c", "sleep 600 & echo started"]) == (0, "started\n"), "not waited for")

    var random = SplitMix64(seed: 1)
    try machine.sendBytes(
      (0..<5000).map { _ in UInt8.random(in: 0...255, using: &random) } + Array("SNWFSN".utf8))
    try machine.sendBytes(Frame(type: 200, epoch: 7, request: 0, body: [1]).encoded())
    try machine.sendBytes(Frame(type: 32, epoch: 7, request: 0, body: [1, 2, 3]).encoded())
    #expect(try machine.run(["echo", "after noise"]).output == "after noise\n")
    try machine.send(.exec(.init(id: 900, arguments: ["echo", "not for you"])), epoch: 6)
    #expect(try machine.run(["echo", "after another's"]).output == "after another's\n")

    let long = try Frame(.execInput(id: 1, bytes: megabytes.prefix(60_000).map { $0 }), epoch: 7).encoded()
    try machine.sendBytes(Array(long[..<100]))
    try machine.reconnect()
    #expect(try machine.hello().bootID == welcome.bootID)
    #expect(try machine.run(["echo", "after half a frame"]).output == "after half a frame\n")
    #expect(machine.violations.isEmpty)
  }

  @Test func aCommandThatNobodyReadsStopsAlone() throws {
    let machine = try AgentMachine(image: try AgentMachine.image())
    _ = try machine.hello()
    try machine.send(.exec(.init(id: 500, arguments: ["cat", "/dev/zero"])), request: 500)
    var received = 0
    while let (message, _, _) = try machine.next(seconds: 1) {
      if case .execOutput(500, .output, let bytes) = message { received += bytes.count }
    }
    #expect(received == GuestMessage.execInitialWindow)
    #expect(try machine.run(["echo", "beside it"]).output == "beside it\n")

    // While a fork is prepared nothing is sent at all, and nothing of it is lost.
    try machine.send(
      .exec(.init(id: 501, arguments: ["sh", "-c", "while :; do echo tick; sleep 0.02; done"])), request: 501)
    _ = try machine.wait("a tick") { if case .execOutput(501, _, let bytes) = $0 { bytes } else { nil } }
    try machine.prepare()
    #expect(try machine.next(seconds: 0.3) == nil)
    try machine.send(.resume(epoch: 7))
    let tick = try machine.next(seconds: 5)
    #expect(tick?.message == .execOutput(id: 501, stream: .output, bytes: Array("tick\n".utf8)))
  }

  @Test func aCloneIsSomeoneElse() throws {
    let image = try AgentMachine.image()
    let parent = try AgentMachine(image: image)
    _ = try parent.hello()
    let hook =
      "printf '#!/bin/sh\\nhostname >/tmp/hooked\\n' >/etc/snowflock/clone.d/10-x; chmod +x /etc/snowflock/clone.d/10-x"
    #expect(try parent.run(["sh", "-c", hook]).status == 0)
    try parent.prepare()
    let state = try parent.snapshot()

    var randoms: Set<String> = []
    for vmid in 1...2 as ClosedRange<UInt32> {
      let clone = try AgentMachine(image: image, incoming: state)
      var identity = GuestMessageTests.identity
      identity.epoch = 100 + UInt64(vmid)
      identity.vmid = vmid
      identity.hostname = "dev-\(vmid)"
      identity.cloneRequest = 0
      (identity.ipAddress, identity.macAddress, identity.gateway) = ("", "", "")
      identity.wallClockNanoseconds = 1_900_000_000_000_000_000
      let taken = try clone.take(identity)
      #expect(taken.reason == nil)
      let look = """
        hostname; cat /etc/hostname /etc/machine-id /run/snowflock/vmid /run/snowflock/ticket /tmp/hooked
        date +%s | cut -c1-7
        """
      #expect(
        try clone.run(["sh", "-c", look]).output == """
          dev-\(vmid)
          dev-\(vmid)
          000102030405060708090a0b0c0d0e0f
          \(vmid)
          ticket
          dev-\(vmid)
          1900000

          """)
      randoms.insert(try clone.run(["sh", "-c", "head -c 16 /dev/urandom | xxd -p"]).output)
    }
    #expect(randoms.count == 2)
    #expect(try parent.run(["cat", "/run/snowflock/vmid"]).output == "0\n")

    let nameless = try AgentMachine(image: image, incoming: state)
    var identity = GuestMessageTests.identity
    identity.hostname = "no name"
    #expect(try nameless.take(identity).reason == "\"no name\" is no host name")
  }

  @Test func aVMThatCouldNotReseedIsRefused() throws {
    let image = try AgentMachine.image()
    var identity = GuestMessageTests.identity
    (identity.ipAddress, identity.macAddress, identity.gateway) = ("", "", "")

    // The VM generation ID of a machine that was not forked does not change.
    let same = try AgentMachine(image: image)
    _ = try same.hello()
    try same.prepare()
    let taken = try same.take(identity)
    #expect(taken.reason == "the kernel did not reseed its random numbers for a new VM generation ID")
    #expect(taken.microseconds > 2_900_000)
    // What a process writes to the kernel's log is not the kernel's word.
    let forged =
      "(sleep 1; echo 'random: crng reseeded due to virtual machine fork' >/dev/kmsg) >/dev/null 2>&1 &"
    #expect(try same.run(["sh", "-c", forged]).status == 0)
    try same.prepare()
    #expect(try same.take(identity).reason != nil)

    let without = try AgentMachine(image: image, generationID: false)
    _ = try without.hello()
    #expect(
      try without.take(identity).reason == "no fork was prepared")
    try without.prepare()
    #expect(
      try without.take(identity).reason
        == "the kernel has no VM generation ID driver or the VM no such device")
  }
}
