import ArgumentParser

struct CacheOption: ParsableArguments {
  @Flag(
    name: .customLong("drop-cache"),
    help: """
      The VM gives up its clean page cache before the fork; it and its clones read files from their disks when they need
      them. For clones that need few of the files that the VM has read.
      """)
  var isDropped = false
}
