import Foundation
import Support
import Testing

/// What clones do not fetch, and that it is not fetched: by the figures of those who would have.
@Suite("Nothing is fetched needlessly", .serialized, .ownHost)
struct FetchTests {
  private let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  private func withClone(
    of vm: String, _ options: String..., body: (_ fork: ForkDocument, _ clone: String) throws -> Void
  ) throws {
    try host.withFork(of: vm, clones: 1, options: options) { try body($0, $0.clones[0].name) }
  }

  private func run(_ vm: String, _ script: String) throws { try host.inside(vm, "sh", "-c", script) }

  /// Leaves most of free memory full of what was not zero.
  private func soil(_ vm: String) throws {
    try run(vm, "dd if=/dev/urandom of=/dev/shm/soil bs=1M count=110 2> /dev/null; rm /dev/shm/soil")
  }
  private static let fill = "dd if=/dev/zero bs=1M count=80 2> /dev/null | tr '\\0' x > /dev/shm/own"
  private static let pagesFilled = 80 << 8

  @Test("A clone that fills memory which was free fetches none of it; with --no-avoidance all of it")
  func freePages() throws {
    try host.device("spares")
    try host.device("fetches", options: ["--no-avoidance"])
    for vm in ["spares", "fetches"] { try soil(vm) }
    try withClone(of: "spares") { fork, clone in
      #expect(fork.freePages > Self.pagesFilled && fork.freeUnknown.isEmpty)
      let before = try host.stats(clone)
      try run(clone, Self.fill)
      let after = try host.stats(clone)
      #expect(after.brought - before.brought < Self.pagesFilled / 4)
      #expect(after.pagesAvoided - before.pagesAvoided > Self.pagesFilled / 2)
      // And so in the clone's own clones, of what is free there.
      try run(clone, "rm /dev/shm/own")
      try withClone(of: clone) { fork, grandchild in
        #expect(fork.freePages > Self.pagesFilled / 2 && fork.freeUnknown.isEmpty)
        let before = try host.stats(grandchild)
        try run(grandchild, Self.fill)
        #expect(try (host.stats(grandchild).brought - before.brought) < Self.pagesFilled / 4)
      }
    }
    try withClone(of: "fetches") { fork, clone in
      #expect(fork.freePages == 0 && fork.freeUnknown == "it was started with --no-avoidance")
      let before = try host.stats(clone)
      try run(clone, Self.fill)
      #expect(try (host.stats(clone).brought - before.brought) > Self.pagesFilled / 2)
    }
    for vm in ["spares", "fetches"] { #expect(try host.sfctl("vm", "destroy", vm).status == 0) }
  }

  @Test("A kernel that looks into its free pages is left its free pages")
  func poison() throws {
    let image = try host.image("poison", like: "mini-tests", withParameter: "page_poison=1")
    try host.device("poison", image: image)
    try soil("poison")
    try withClone(of: "poison") { fork, clone in
      #expect(fork.freePages == 0 && fork.freeUnknown == "its guest does not tell")
      try run(clone, Self.fill)
      let log = try host.inside(clone, "dmesg")
      #expect(!log.contains("corruption"))
    }
    #expect(try host.sfctl("vm", "destroy", "poison").status == 0)
  }

  @Test("Page cache: filled by a disk it is not fetched; with --drop-cache it is not even in the fork")
  func pageCache() throws {
    try host.device("reads", disk: "128M")
    // The kernel gives up the cache of a disk that nobody has open.
    try run("reads", "sleep 1000 < /dev/vda > /dev/null 2>&1 &")
    try run(
      "reads", "dd if=/dev/urandom of=/dev/vda bs=1M count=128 2> /dev/null; sync; cat /dev/vda > /dev/null")
    let sum = "dd if=/dev/vda bs=1M count=128 2> /dev/null | md5sum"
    let right = try host.inside("reads", "sh", "-c", sum)
    try withClone(of: "reads") { fork, clone in
      // What it gives up was in use at the fork, and so would be fetched to be written over.
      try run(clone, "echo 1 > /proc/sys/vm/drop_caches")
      let before = try host.stats(clone)
      let found = try host.inside(clone, "sh", "-c", sum)
      #expect(found == right)
      let after = try host.stats(clone)
      #expect(after.pagesOverwritten > 10_000)
      #expect(after.brought - before.brought < (128 << 8) / 4)
      try withClone(of: "reads", "--drop-cache") { dropped, other in
        #expect(dropped.freePages > fork.freePages + 20_000)
        let found = try host.inside(other, "sh", "-c", sum)
        #expect(found == right)
      }
    }
    #expect(try host.inside("reads", "sh", "-c", sum) == right)
    #expect(try host.sfctl("vm", "destroy", "reads").status == 0)
  }

  @Test("A guest without an agent is forked with what is known from outside")
  func agentless() throws {
    let image = try host.image("mute", like: "mini-tests", withParameter: "")
    let refused = try host.sfctl(
      "vm", "start", "mute", "--image", image, "--no-agent", "--subnet", "10.9.0.0/16")
    #expect(refused.status == 2 && refused.error.contains("--no-agent takes no network options"))
    try host.device("mute", image: image, options: ["--no-agent"])
    #expect(try eventually(seconds: 60) { try host.vm("mute")?.presentBytes ?? 0 > 60 << 20 })
    try withClone(of: "mute") { fork, clone in
      #expect(fork.freePages == 0 && fork.freeUnknown == "no agent answers in it")
      #expect(try host.vm(clone)?.state == "running")
      #expect(try eventually(seconds: 20) { try host.stats(clone).pagesFetched > 50 })
      let exec = try host.sfctl("exec", clone, "--", "true")
      #expect(exec.status != 0 && exec.error.contains("it was started with --no-agent"))
      let dropped = try host.sfctl("fork", "mute", "-n", "1", "--drop-cache")
      #expect(dropped.status == 4 && dropped.error.contains("no agent answers in it"))
    }
    #expect(try host.sfctl("vm", "stop", "mute", "--timeout", "1").status == 0)
    #expect(try host.vm("mute") == nil)
  }
}

extension StatsDocument {
  /// Pages that came from the parent, for need or ahead of it.
  fileprivate var brought: Int { pagesFetched + pagesPrefetched }
}
