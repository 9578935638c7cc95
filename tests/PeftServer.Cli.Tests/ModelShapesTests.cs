using PeftServer.Cli.Bench;

namespace PeftServer.Cli.Tests;

/// <summary>The shapes that speed is measured on, against the parameter counts that their makers published.</summary>
public sealed class ModelShapesTests
{
    [Theory]
    [InlineData("1b", 1_235_814_400)]
    [InlineData("8b", 8_030_261_248)]
    [InlineData("gemma-2b", 2_506_172_416)]
    [InlineData("gemma2-2b", 2_614_341_888)]
    [InlineData("gemma3-1b", 999_885_952)]
    [InlineData("granite-2b", 2_533_531_648)]
    [InlineData("olmo2-1b", 1_484_916_736)]
    [InlineData("qwen3-30b-a3b", 30_532_122_624)]
    [InlineData("aya-8b", 8_028_033_024)]
    public void Plan_AShape_HasThePublishedParameters(string name, long parameters) => ModelShapes.Plan(name).ParameterCount.ShouldBe(parameters);

    [Fact]
    public void Plan_OneBlock_HasOne() => ModelShapes.Plan("gemma3-1b", blocks: 1).LayerCount.ShouldBe(1);
}
