namespace PeftServer.Cli.Up;

/// <summary>What <c>up</c> tells a person: a name and a fact a line, problems on standard error.</summary>
internal sealed class StatusLines(TextWriter output, TextWriter error)
{
    private readonly Lock _lock = new();

    public void Line(string name, string fact)
    {
        lock (_lock)
        {
            output.WriteLine($"{name,-11} {fact}");
        }
    }

    public void Problem(string message)
    {
        lock (_lock)
        {
            error.WriteLine(message);
        }
    }
}
