namespace PeftServer.Cli;

/// <summary>What <c>peftserver</c> ends with; the list is in <c>peftserver --help</c>.</summary>
internal static class ExitCode
{
    public const int Done = 0;

    /// <summary>The work itself failed: a job, a step of the demo, a child that would not start.</summary>
    public const int Failed = 1;

    /// <summary>The command line or a setting cannot be understood.</summary>
    public const int Usage = 2;

    /// <summary>This machine lacks something: no PostgreSQL, a port or the data directory is taken.</summary>
    public const int Environment = 3;
}
