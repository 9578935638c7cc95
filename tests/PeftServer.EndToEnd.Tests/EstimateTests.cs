using PeftServer.Cli.Bench;

namespace PeftServer.EndToEnd.Tests;

/// <summary>Estimates beside real runs, as <c>peftserver bench estimate</c> has ten of them: two are done here.</summary>
public sealed class EstimateTests
{
    [Theory]
    [InlineData("lora")] // the hand-written step
    [InlineData("dpo")] // tensor code
    public void Estimate_OfARun_IsWhatItTakes(string name)
    {
        var root = Directory.CreateTempSubdirectory("peftserver-estimate-").FullName;
        try
        {
            var (told, held) = new EstimateBench([PeftServerProgram.Metadata("Program")], "cpu").Run(EstimateCase.OnCpu.Single(each => each.Name == name), root, steps: 3);

            told.Steps.ShouldBe(held.Steps);
            told.Tokens.ShouldBe(held.Tokens);
            Math.Abs(EstimateBench.Error(told, held)).ShouldBeLessThan(0.15, EstimateBench.Line(name, told, held));
        }
        finally
        {
            Directory.Delete(root, recursive: true);
        }
    }
}
