import GRPCCore
import Testing
import Wire

@Suite struct WireTests {
  @Test func statusOfTheDaemonsAnswerIsTheContracts() {
    let expected: [(RPCError.Code, Int32)] = [
      (.notFound, 3), (.resourceExhausted, 4), (.permissionDenied, 4), (.failedPrecondition, 4),
      (.alreadyExists, 4), (.invalidArgument, 2), (.unknown, 1), (.internalError, 1), (.unavailable, 1),
      (.deadlineExceeded, 1), (.cancelled, 1), (.unimplemented, 1),
    ]
    for (code, status) in expected { #expect(ExitStatus(code).rawValue == status, "\(code)") }
  }

  @Test func pathsAreMovedByTheEnvironment() {
    let usual = RuntimePaths.fromEnvironment([:])
    #expect(usual.socket == "/run/snowfork/sfd.sock")
    #expect(usual.images == "/var/lib/snowfork/images")
    let moved = RuntimePaths.fromEnvironment(["SNOWFORK_RUN": "/r", "SNOWFORK_STATE": ""])
    #expect(moved.socket == "/r/sfd.sock")
    #expect(moved.daemonLog == "/var/lib/snowfork/sfd.log")
  }
}
