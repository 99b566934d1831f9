import ArgumentParser

/// How the memory of clones gets to other hosts.
struct DistributionOptions: ParsableArguments {
  enum Transport: String, ExpressibleByArgument, CaseIterable { case auto, unicast, multicast }

  @Flag(help: "Bring all of the memory to every host in the background: then the origin may end.")
  var push = false
  @Option(help: "How pages travel to other hosts; auto falls back to unicast by itself.")
  var transport = Transport.auto
}
