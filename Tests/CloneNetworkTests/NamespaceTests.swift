import Foundation
import Glibc
import LinuxSystem
import Testing

/// Network namespaces with a name.
@Suite(.serialized) struct NamespaceTests {
  private let name = "sfn\(getpid())-\(UInt32.random(in: 0 ..< .max))"

  @Test func aNameLastsUntilItIsRemoved() throws {
    #expect(try NetworkNamespace(named: name) == nil)
    let made = try NetworkNamespace.make(named: name)
    #expect(try NetworkNamespace(named: name)?.number == made.number)
    #expect(try made.number != NetworkNamespace.current().number)
    #expect(try NetworkNamespace.names(prefix: name) == [name])
    #expect(throws: SystemError.self) { try NetworkNamespace.make(named: name) }
    #expect(try runTool("ip netns exec \(name) ip -o link show").contains("lo:"))
    try NetworkNamespace.remove(named: name)
    try NetworkNamespace.remove(named: name)
    #expect(try NetworkNamespace(named: name) == nil && NetworkNamespace.names(prefix: name).isEmpty)
  }

  @Test func whatIsLeftOfANamespaceIsNone() throws {
    mkdir("/run/netns", 0o755)
    try Data().write(to: URL(fileURLWithPath: "/run/netns/\(name)"))
    #expect(try NetworkNamespace(named: name) == nil)
    try NetworkNamespace.remove(named: name)
    #expect(access("/run/netns/\(name)", F_OK) != 0)
  }

  @Test func workInANamespaceLeavesTheCallerWhereItIs() throws {
    let before = try NetworkNamespace.current().number
    let made = try NetworkNamespace.make(named: name)
    defer { try? NetworkNamespace.remove(named: name) }
    #expect(try made.run { try NetworkNamespace.current().number } == made.number)
    #expect(throws: SystemError.self) { try made.run { throw SystemError("test", errno: EIO) } }
    #expect(try NetworkNamespace.current().number == before)
  }

  /// A daemon that has hidden something has a mount namespace of its own. What it names must be found by the next one,
  /// which has another.
  @Test func namesOutliveAHiddenProcess() throws {
    let hidden = "/tmp/\(name)"
    try Data().write(to: URL(fileURLWithPath: hidden))
    defer { unlink(hidden) }
    let number = UnsafeMutablePointer<UInt64>.allocate(capacity: 1)
    defer { number.deallocate() }
    number.pointee = 0
    let (name, address) = (name, UInt(bitPattern: number))
    try NamedThread("hidden") {
      do {
        try ProcessSetup.hide(hidden)
        UnsafeMutablePointer<UInt64>(bitPattern: address)!.pointee = try NetworkNamespace.make(named: name)
          .number
      } catch { Issue.record("\(error)") }
    }.join()
    // Of the thread and its mount namespace nothing is left.
    #expect(try NetworkNamespace(path: "/run/netns/\(name)").number == number.pointee)
    try NetworkNamespace.remove(named: name)
    #expect(access("/run/netns/\(name)", F_OK) != 0)
  }
}
