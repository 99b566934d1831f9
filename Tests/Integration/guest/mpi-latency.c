/* mpi-latency [ROUNDS]: how long a message takes between rank 0 and each other rank, and whether it came as it went.
 * A line a rank, by rank 0: "RANK HOST right|wrong N bytes U us" for messages of 8 bytes, and of 64 KiB. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGE = 64 << 10 };

static unsigned char sent[LARGE], received[LARGE];

static void fill(int round, int size) {
  for (int index = 0; index < size; index++) sent[index] = (unsigned char)(index * 31 + round * 7);
}

/* Rank 0 with `other`. Half a round trip, in microseconds; negative: what came back was not what was sent. */
static double ping(int other, int size, int rounds) {
  int wrong = 0;
  double begin = MPI_Wtime();
  for (int round = 0; round < rounds; round++) {
    fill(round, size);
    MPI_Send(sent, size, MPI_BYTE, other, size, MPI_COMM_WORLD);
    MPI_Recv(received, size, MPI_BYTE, other, size, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    wrong |= memcmp(sent, received, (size_t)size) != 0;
  }
  double microseconds = (MPI_Wtime() - begin) * 1e6 / rounds / 2;
  return wrong ? -1 : microseconds;
}

static void pong(int size, int rounds) {
  for (int round = 0; round < rounds; round++) {
    MPI_Recv(received, size, MPI_BYTE, 0, size, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Send(received, size, MPI_BYTE, 0, size, MPI_COMM_WORLD);
  }
}

int main(int count, char **arguments) {
  MPI_Init(&count, &arguments);
  int rounds = count > 1 ? atoi(arguments[1]) : 100;
  int rank, ranks, length;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  char host[MPI_MAX_PROCESSOR_NAME];
  memset(host, 0, sizeof host);
  MPI_Get_processor_name(host, &length);
  static const int sizes[] = {8, LARGE};
  for (int other = 1; other < ranks; other++) {
    char name[MPI_MAX_PROCESSOR_NAME];
    if (rank == other) MPI_Send(host, sizeof host, MPI_CHAR, 0, 0, MPI_COMM_WORLD);
    if (rank == 0) MPI_Recv(name, sizeof name, MPI_CHAR, other, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
      if (rank == other) pong(sizes[index], rounds);
      if (rank != 0) continue;
      double microseconds = ping(other, sizes[index], rounds);
      printf("%d %s %s %d bytes %.1f us\n", other, name, microseconds < 0 ? "wrong" : "right", sizes[index],
             microseconds);
    }
  }
  fflush(stdout);
  /* A rank that finalizes while another's last message is under way leaves that one waiting (MPICH 4.0.2 over UCX). */
  MPI_Barrier(MPI_COMM_WORLD);
  MPI_Finalize();
  return 0;
}
