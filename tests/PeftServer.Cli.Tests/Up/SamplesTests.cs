using PeftServer.Cli.Up;

namespace PeftServer.Cli.Tests.Up;

public sealed class SamplesTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void CopyModelsTo_EmptyFolder_BringsTheSampleModelWhole()
    {
        Samples.CopyModelsTo(_folder["models"]);

        Directory.GetDirectories(_folder["models"]).Select(Path.GetFileName).ShouldBe(["tiny-llama"]);
        new FileInfo(Path.Combine(_folder["models"], "tiny-llama", "model.safetensors")).Length.ShouldBeGreaterThan(1_000_000);
    }

    [Fact]
    public void CopyModelsTo_ModelThere_LeavesItAsItIs()
    {
        var config = Path.Combine(Directory.CreateDirectory(Path.Combine(_folder["models"], "tiny-llama")).FullName, "config.json");
        File.WriteAllText(config, "mine");

        Samples.CopyModelsTo(_folder["models"]);

        File.ReadAllText(config).ShouldBe("mine");
    }
}
