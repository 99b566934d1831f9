import Fork
import Foundation

/// The daemon of a host. Everything is set by the environment: see `Fork.Configuration`.
let arguments = CommandLine.arguments.dropFirst()
if arguments.contains("--version") {
  print("sfd \(Daemon.version)")
  exit(0)
}
if !arguments.isEmpty {
  let help =
    "usage: sfd [--version]\nSNOWFORK_RUN, SNOWFORK_STATE, SNOWFORK_LIBVIRT_URI and SNOWFORK_HOST set it up; see docs/architecture.md.\n"
  FileHandle.standardError.write(Data(help.utf8))
  exit(arguments.contains("--help") ? 0 : 2)
}
guard geteuid() == 0 else {
  FileHandle.standardError.write(
    Data(
      "sfd: cannot start: it opens /dev/userfaultfd and runs VMs, which needs root. Run it as root.\n".utf8))
  exit(4)
}
do {
  let daemon = try Daemon(.fromEnvironment())
  try await daemon.run()
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
