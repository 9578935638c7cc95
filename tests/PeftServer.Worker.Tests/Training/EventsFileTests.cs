using System.Text;
using PeftServer.Engine.Training;
using PeftServer.Worker.Training;

namespace PeftServer.Worker.Tests.Training;

public sealed class EventsFileTests : IDisposable
{
    private readonly string _path = Path.GetTempFileName();

    [Fact]
    public void Read_NoFileYet_IsNothing()
    {
        var batch = new EventsFile(_path + ".none").Read(0);

        (batch.Events.Count, batch.End, batch.Final).ShouldBe((0, 0L, null));
    }

    [Fact]
    public void Read_HalfALine_WaitsForTheRest()
    {
        var line = Line("metrics", "one");
        Append(line + line[..20]);

        var first = new EventsFile(_path).Read(0);
        Append(line[20..]);
        var second = new EventsFile(_path).Read(first.End);

        (first.Events.Count, first.End).ShouldBe((1, line.Length));
        (second.Events.Count, second.End).ShouldBe((1, line.Length * 2));
    }

    [Fact]
    public void Read_OutcomeAtTheEnd_IsKeptApart()
    {
        Append(Line("message", "one") + Line("succeeded", "done"));

        var batch = new EventsFile(_path).Read(0);

        batch.Events.Single().Message.ShouldBe("one");
        batch.Final!.Type.ShouldBe(TrainingEventType.Succeeded);
        new EventsFile(_path).Read(batch.End).Final.ShouldNotBeNull(); // it can be read again
    }

    [Fact]
    public void Read_OutcomeThatMoreFollows_WasAFormerOne()
    {
        Append(Line("paused", "stopped") + Line("message", "on again"));

        var batch = new EventsFile(_path).Read(0);

        (batch.Events.Single().Message, batch.Final).ShouldBe(("on again", null));
    }

    [Theory]
    [InlineData("no json\n")]
    [InlineData("{\"number\": 1}\n")]
    [InlineData("{\"number\": 1, \"created_at\": 1, \"type\": \"message\", \"message\": \"x\", \"unknown\": 1}\n")]
    [InlineData("\0\0\0\n")]
    public void Read_LineThatIsNoEvent_IsAWarning(string line)
    {
        Append(line);

        new EventsFile(_path).Read(0).Events.Single().Level.ShouldBe(TrainingEventLevel.Warn);
    }

    [Fact]
    public void Read_EndlessLine_IsGotOver()
    {
        Append(new string('x', 3 << 20) + "\n" + Line("message", "after"));
        var file = new EventsFile(_path);

        var messages = new List<string>();
        for (var offset = 0L; offset < file.Length;)
        {
            var batch = file.Read(offset);
            batch.End.ShouldBeGreaterThan(offset);
            messages.AddRange(batch.Events.Select(said => said.Message));
            offset = batch.End;
        }

        messages[^1].ShouldBe("after");
    }

    public void Dispose() => File.Delete(_path);

    private static string Line(string type, string message) =>
        $"{{\"number\": 1, \"created_at\": 1700000000000, \"type\": \"{type}\", \"message\": \"{message}\"}}\n";

    private void Append(string text) => File.AppendAllText(_path, text, new UTF8Encoding(false));
}
