// Each of these tests runs the whole server; two at a time would only measure each other.
[assembly: Parallelization(Mode = Xunit.Sdk.ParallelMode.None)]
