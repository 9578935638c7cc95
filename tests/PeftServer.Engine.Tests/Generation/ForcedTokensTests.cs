using PeftServer.Engine.Generation;

namespace PeftServer.Engine.Tests.Generation;

public sealed class ForcedTokensTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("peftserver-forced-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("""{"forced_bos_token_id": 0, "forced_eos_token_id": 2}""", null, 0, 2)]
    [InlineData("""{"forced_eos_token_id": [2, 5]}""", """{"eos_token_id": 2, "forced_bos_token_id": 7}""", 7, null)] // the newer file says all
    [InlineData("""{"forced_bos_token_id": null}""", """{"forced_eos_token_id": [2, 5]}""", null, 2)]
    public void Read_Configs_GivesWhatTheyForce(string config, string? generation, int? first, int? last)
    {
        File.WriteAllText(Path.Combine(_folder, "config.json"), config);
        if (generation is not null)
        {
            File.WriteAllText(Path.Combine(_folder, "generation_config.json"), generation);
        }

        ForcedTokens.Read(_folder).ShouldBe(new ForcedTokens(first, last));
    }

    [Fact]
    public void Read_NothingForced_GivesNull()
    {
        ForcedTokens.Read(_folder).ShouldBeNull();
        File.WriteAllText(Path.Combine(_folder, "config.json"), """{"forced_eos_token_id": null}""");
        ForcedTokens.Read(_folder).ShouldBeNull();
    }
}
