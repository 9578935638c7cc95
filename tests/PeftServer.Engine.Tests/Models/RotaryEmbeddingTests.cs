using PeftServer.Engine.Models;

namespace PeftServer.Engine.Tests.Models;

/// <summary>Frequencies of scaled rotary positions. The expected numbers were computed apart from this code, in Python from transformers' formulas.</summary>
public sealed class RotaryEmbeddingTests
{
    [Fact]
    public void Dynamic_LongSequence_TurnsSlowerThanShortOne()
    {
        var rope = Of("""{"max_position_embeddings": 16, "rope_scaling": {"type": "dynamic", "factor": 4.0}}""", 8);

        rope.At(16).ShouldBe([1f, 0.1f, 0.01f, 0.001f], 1e-8);
        rope.At(48).ShouldBe([1f, 0.0480749856f, 0.00231120424f, 0.000111111111f], 1e-8);
    }

    [Fact]
    public void Yarn_OfQwen_MixesFrequenciesAndRaisesAttention()
    {
        var rope = Of("""{"max_position_embeddings": 131072, "rope_theta": 1000000.0, "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1000000.0, "original_max_position_embeddings": 32768}}""", 16, 1_000_000);

        rope.At(1).ShouldBe([1f, 0.177827941f, 0.0316227766f, 0.00421755994f, 0.0005f, 4.44569853e-05f, 7.90569415e-06f, 1.40585331e-06f], 1e-10);
        rope.Attention.ShouldBe(1.1386294361, 1e-9);
    }

    [Fact]
    public void LongRope_BeyondPretraining_TakesTheLongFactors()
    {
        var rope = Of("""
            {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
             "rope_scaling": {"type": "longrope", "short_factor": [1.0, 2.0], "long_factor": [4.0, 8.0]}}
            """, 4);

        rope.At(4096).ShouldBe([1f, 0.005f], 1e-8);
        rope.At(4097).ShouldBe([0.25f, 0.00125f], 1e-8);
        rope.Attention.ShouldBe(Math.Sqrt(1 + (Math.Log(32) / Math.Log(4096))), 1e-12);
    }

    [Fact]
    public void Linear_Factor_StretchesEveryFrequency() =>
        Of("""{"max_position_embeddings": 16, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}""", 4).At(1).ShouldBe([0.5f, 0.005f], 1e-8);

    private static RotaryFrequencies Of(string json, int dim, double theta = 10_000)
    {
        var config = PretrainedConfig.Parse(json);
        return RotaryFrequencies.Of(config, dim, config.Section("rope_parameters") ?? config.Section("rope_scaling"), theta);
    }
}
