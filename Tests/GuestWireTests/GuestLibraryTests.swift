import Foundation
import GuestWire
import Testing

/// libsnowflock and the agent in a real VM, with the test in sfd's place.
@Suite(.serialized, .timeLimit(.minutes(3))) struct GuestLibraryTests {
  /// `clone`: forks and ends in each clone as its number says. `ticket`: asks and notes what came of it. `deaf`: asks and
  /// does not read the answer.
  static let program = """
    #include <errno.h>
    #include <poll.h>
    #include <snowflock.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/un.h>
    #include <unistd.h>
    static int ask_and_wait(void) {
      struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/snowflock/agent.sock"};
      /* SF_AGENT_REQUEST_TICKET for one clone, as in agent_protocol.h. */
      struct { unsigned magic; unsigned short version, type; int number; char rest[100]; } request = {
          .magic = 0x47414653, .version = 1, .type = 1, .number = 1};
      int agent = socket(AF_UNIX, SOCK_STREAM, 0);
      if (connect(agent, (struct sockaddr *)&address, sizeof address) != 0) return 1;
      if (write(agent, &request, sizeof request) != 112) return 2;
      struct pollfd waiting = {.fd = agent, .events = POLLIN};
      poll(&waiting, 1, -1);
      puts("granted");
      fflush(stdout);
      return pause();
    }
    int main(int count, char **arguments) {
      if (!strcmp(arguments[1], "deaf")) return ask_and_wait();
      if (!strcmp(arguments[1], "ticket")) {
        sf_ticket ticket = sf_request_ticket_on(2, 0, "h2");
        FILE *note = fopen("/root/note", "w");
        fprintf(note, "%d %s %d\\n", ticket.granted, ticket.id, ticket.error);
        return fclose(note);
      }
      sf_ticket made_up = {.id = "made-up"};
      if (sf_clone(made_up) != -ENOENT) return 2; /* the host is not asked */
      sf_ticket ticket = sf_request_ticket(3, 1);
      int vmid = sf_clone(ticket);
      if (vmid < 0) return 1;
      if (vmid == 4) abort();
      char result[32];
      if (vmid > 0) sf_exit_with(40 + vmid, result, snprintf(result, sizeof result, "%d %d", vmid, sf_vmid()));
      sf_exit_status ends[2];
      int joined = sf_join(ticket, ends, 2);
      for (int index = 0; index < joined; index++)
        printf("%d %d %d %.*s\\n", ends[index].vmid, ends[index].how, ends[index].status,
               (int)ends[index].result_length, (char *)ends[index].result);
      sf_free_statuses(ends, joined);
      printf("%d %s\\n", sf_kill(ticket), sf_strerror(-ENOSYS));
      return 0;
    }
    """

  @Test func aForkIsAnsweredToTheProcessThatAsked() throws {
    let image = try AgentMachine.image()
    let machine = try AgentMachine(image: image)
    _ = try machine.hello()
    #expect(
      try machine.run(["sh", "-c", "cat >/root/try; chmod +x /root/try"], input: try Self.compiled()).status
        == 0)

    try machine.send(.exec(.init(id: 801, arguments: ["/root/try", "clone"])), request: 801)
    let granting = try machine.wait("requestTicket") {
      if case .requestTicket(3, true, "") = $0 { true } else { nil }
    }.request
    try machine.send(.ticketGranted(ticket: "ticket-1", granted: 2), request: granting)
    let forking = try machine.wait("clone") { if case .clone("ticket-1") = $0 { true } else { nil } }.request
    try machine.send(.exec(.init(id: 802, arguments: ["/root/try", "ticket"])), request: 802)
    let asking = try machine.wait("requestTicket") {
      if case .requestTicket(2, false, "h2") = $0 { true } else { nil }
    }.request
    try machine.prepare()
    let state = try machine.snapshot()

    // The clone has two vmids: one process ends by sf_exit_with, its fork by a signal. Its other process is told
    // that its ticket will not come.
    let clone = try AgentMachine(image: image, incoming: state)
    var identity = GuestMessageTests.identity
    (identity.ipAddress, identity.macAddress, identity.gateway) = ("", "", "")
    (identity.vmid, identity.processes, identity.cloneRequest) = (3, 2, forking)
    #expect(try clone.take(identity).reason == nil)
    var ends: [UInt32: (Int32, String)] = [:]
    while ends.count < 2 {
      let exit = try clone.wait("exit") { message -> (UInt32, Int32, [UInt8])? in
        if case .exit(let vmid, let status, let result) = message { (vmid, status, result) } else { nil }
      }
      ends[exit.value.0] = (exit.value.1, String(decoding: exit.value.2, as: UTF8.self))
      try clone.send(.done, request: exit.request)
    }
    #expect(ends[3]?.0 == 43 && ends[3]?.1 == "3 3")
    #expect(ends[4]?.0 == 128 + 6 && ends[4]?.1 == "")
    #expect(try clone.run(["cat", "/root/note"]).output == "0  -125\n")

    // The parent's processes get their own answers, the second one from an sfd that was not there when it asked.
    try machine.send(.cloned(vmid: 0, granted: 2), request: forking)
    let joining = try machine.wait("join") {
      if case .join("ticket-1", -1) = $0 { true } else { nil }
    }.request
    for end in [
      GuestMessage.JoinStatus(vmid: 1, how: .exited, status: 5, result: Array("home".utf8), reason: ""),
      .init(vmid: 2, how: .lost, status: 0, result: [], reason: "its QEMU ended"),
    ] { try machine.send(.joinStatus(end), request: joining) }
    try machine.send(.done, request: joining)
    let killing = try machine.wait("kill") { if case .kill("ticket-1") = $0 { true } else { nil } }.request
    try machine.send(.done, request: killing)
    let printed = try machine.wait("what it printed") { message -> [UInt8]? in
      if case .execOutput(801, .output, let bytes) = message { bytes } else { nil }
    }
    #expect(String(decoding: printed.value, as: UTF8.self) == "1 1 5 home\n2 3 0 \n0 not in this version\n")

    try machine.reconnect()
    try machine.send(.hello(.init(session: 2, epoch: machine.epoch, hostTimeNanoseconds: 0)))
    let again = try machine.wait("requestTicket again") {
      if case .requestTicket(2, false, "h2") = $0 { true } else { nil }
    }
    #expect(again.request == asking)
    try machine.send(.ticketGranted(ticket: "ticket-2", granted: 1), request: asking)
    #expect(
      try machine.run(["sh", "-c", "while ! cat /root/note; do :; done 2>/dev/null"]).output
        == "1 ticket-2 0\n")

    try machine.send(.exec(.init(id: 803, arguments: ["/root/try", "ticket"])), request: 803)
    let abandoned = try machine.wait("requestTicket") {
      if case .requestTicket = $0 { true } else { nil }
    }.request
    try machine.send(.execSignal(id: 803, signal: SIGKILL))
    #expect(try machine.wait("cancel") { if case .cancel = $0 { true } else { nil } }.request == abandoned)
    try machine.send(.ticketGranted(ticket: "ticket-3", granted: 2), request: abandoned)
    #expect(try machine.killed() == "ticket-3")

    // A process that ends with its ticket unread leaves none. Those that read theirs and ended have left them: the agent
    // has given back nothing else.
    try machine.send(.exec(.init(id: 804, arguments: ["/root/try", "deaf"])), request: 804)
    let unread = try machine.wait("requestTicket") {
      if case .requestTicket(1, false, "") = $0 { true } else { nil }
    }.request
    try machine.send(.ticketGranted(ticket: "ticket-4", granted: 1), request: unread)
    _ = try machine.wait("granted") { if case .execOutput(804, _, let bytes) = $0 { bytes } else { nil } }
    try machine.send(.execSignal(id: 804, signal: SIGKILL))
    #expect(try machine.killed() == "ticket-4")
  }

  /// Linked statically: `mini` has no C library.
  private static func compiled() throws -> [UInt8] {
    let directory = "/tmp/sf-library-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try program.write(toFile: "\(directory)/try.c", atomically: true, encoding: .utf8)
    let guest = "\(AgentMachine.repository)/build/guest"
    let compiler = Foundation.Process()
    compiler.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    compiler.arguments = [
      "cc", "-static", "-O1", "-s", "-I", guest, "-o", "\(directory)/try", "\(directory)/try.c",
      "\(guest)/libsnowflock.a",
    ]
    try compiler.run()
    compiler.waitUntilExit()
    guard compiler.terminationStatus == 0 else {
      throw AgentMachine.Failure.imageNotBuilt(compiler.terminationStatus)
    }
    return [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(directory)/try")))
  }
}

extension AgentMachine {
  /// The next ticket that the agent gives back.
  fileprivate func killed() throws -> String {
    try wait("kill") { if case .kill(let ticket) = $0 { ticket } else { nil } }.value
  }
}
