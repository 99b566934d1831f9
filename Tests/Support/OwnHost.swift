import Foundation
import Testing

/// Gives a suite a host of its own. After each of its tests no clone, ticket or snapshot may be left, after the last
/// one nothing at all: what is there is told as a failure, and removed.
public struct OwnHost: SuiteTrait, TestTrait, TestScoping {
  /// More than 0: a lab of so many hosts, the suite's sfctl talking to its h1.
  var labHosts = 0
  /// For `lab up`.
  var labOptions: [String] = []

  public var isRecursive: Bool { true }

  public func scopeProvider(for test: Test, testCase: Test.Case?) -> Self? {
    test.isSuite || testCase != nil ? self : nil
  }

  public func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    guard test.isSuite else {
      try await function()
      if let host = TestHost.here {
        let vms = try host.vms()
        try checkAfterTest(host, vms)
        host.untilNamesAreFree(but: vms.map(\.name))
      }
      return
    }
    let host = try TestHost()
    if labHosts > 0 { try host.labUp(hosts: labHosts, options: labOptions) }
    let result = await Self.result { try await TestHost.$here.withValue(host) { try await function() } }
    let log = host.daemonLog
    let left = (labHosts > 0 ? host.labDown() : []) + LeftBehind.afterEnd(of: host)
    if !left.isEmpty {
      Issue.record("left behind: \(left.joined(separator: ", "))\nsfd.log:\n\(log.suffix(4000))")
    }
    try result.get()
  }

  private static func result(_ body: () async throws -> Void) async -> Result<Void, any Error> {
    do { return .success(try await body()) } catch { return .failure(error) }
  }

  private func checkAfterTest(_ host: TestHost, _ vms: [VMDocument]) throws {
    let clones = vms.filter { $0.role != "parent" }.map(\.name)
    let tickets = try host.tickets()
    let snapshots = try host.snapshots()
    guard !(clones + tickets + snapshots).isEmpty else { return }
    Issue.record(
      "after the test there are still: \(clones + tickets + snapshots)\n\(host.daemonLog.suffix(3000))")
    for ticket in tickets {
      _ = try host.sfctl("kill", ticket)
      _ = try host.sfctl("join", ticket)
    }
    for clone in clones { _ = try host.sfctl("kill", clone) }
    for snapshot in snapshots { _ = try host.sfctl("snapshot", "rm", snapshot) }
  }
}

extension Trait where Self == OwnHost {
  /// A host of the suite's own, `TestHost.here` in its tests.
  public static var ownHost: Self { OwnHost() }
  /// A lab of the suite's own: `TestHost.here` is its h1, and the others are reached by `lab exec`.
  public static func ownLab(hosts: Int, options: [String] = []) -> Self {
    OwnHost(labHosts: hosts, labOptions: options)
  }
}
