using Xunit.Sdk;
using Xunit.v3;

// Each of these tests runs the whole server; two at a time would only measure each other.
[assembly: Parallelization(Mode = ParallelMode.None)]
