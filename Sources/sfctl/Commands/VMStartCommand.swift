import ArgumentParser
import Foundation
import Wire

struct VMStartCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "start", abstract: "Start a device VM and return when its agent answers.",
    discussion: "EXAMPLE: sfctl vm start dev --image debian --memory 1G --vcpus 2")

  @Argument(help: "The VM's name.") var name: String
  @Option(help: "mini, debian, debian-disk, mpi, or a directory that holds an image.") var image = "mini"
  @Option(help: "RAM: 256M, 1G, or bytes.") var memory = MemorySize(argument: "256M")!
  @Option(help: "Virtual CPUs.") var vcpus: UInt32 = 1
  @Option(
    help:
      "A writable disk, /dev/vda and so on: 2G for an empty one, or the path of a qcow2 or raw file that it begins as."
  )
  var disk: [DiskArgument] = []
  @OptionGroup var network: NetworkOptions
  @Option(help: "The host to run on.") var host: String?
  @Option(help: "What each virtual CPU may use of a processor once it has booted, 1 to 100 percent.")
  var cpuLimit: UInt32?
  @Flag(
    help:
      "Clones fetch also pages that were free in the guest at the fork, or that a device overwrites whole.")
  var noAvoidance = false
  @Flag(
    help: """
      The image has no agent: return when the VM runs. Its clones keep its name and know nothing of the fork; no
      program can be run in it by sfctl, and it has no network card.
      """)
  var noAgent = false
  @OptionGroup var output: OutputOptions

  func validate() throws {
    if noAgent, network.isAsked {
      throw ValidationError("--no-agent takes no network options: its clones would all keep its address.")
    }
    guard (1...255).contains(vcpus) else { throw ValidationError("--vcpus takes 1 to 255.") }
    if let cpuLimit, !(1...100).contains(cpuLimit) {
      throw ValidationError("--cpu-limit takes 1 to 100 percent.")
    }
  }

  func run() async throws {
    let directory = try ImageDirectory.named(image).requireBuilt()
    let request = Snowfork_V1_StartVMRequest.with {
      $0.name = name
      $0.imageDirectory = directory
      $0.memoryBytes = memory.bytes
      $0.vcpus = vcpus
      $0.host = host ?? ""
      $0.cpuLimitPercent = cpuLimit ?? 0
      $0.disks = disk.map(\.request)
      $0.network = network.request
      if noAgent { $0.network.none = true }
      $0.traits = .with {
        $0.fetchesAll = noAvoidance
        $0.agentless = noAgent
      }
    }
    let vm = try await ProgressLine.during("starting \(name)") { line in
      try await Daemon.call { client in
        try await client.startVM(request, options: Daemon.options) { response in
          try await response.last(
            progress: { await line.update($0.progress) }, final: { $0.hasVm ? $0.vm : nil })
        }
      }
    }
    try output.show(
      VMDocument(vm),
      text: "\(vm.name) runs on \(vm.host): \(Units.bytes(vm.memoryBytes)), pid \(vm.pid)")
  }
}
