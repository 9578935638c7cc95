using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>The activations of the library, by its names; they differ from transformers' in a few.</summary>
internal static class HubActivation
{
    public static void Check(string field, string name) => _ = Find(name)
        ?? throw new AdapterException(field, $"'{name}' is unknown. Known: relu, gelu, gelu_new, swish, tanh, leakyrelu, sigmoid, mish, linear.");

    public static Func<Tensor, Tensor> Of(string name) => Find(name)!;

    public static void CheckShare(string field, double share)
    {
        if (share is not (>= 0 and < 1))
        {
            throw new AdapterException(field, "must be from 0 to below 1.");
        }
    }

    private static Func<Tensor, Tensor>? Find(string name) => name.ToLowerInvariant() switch
    {
        "leakyrelu" => Activation.Find("leaky_relu"),
        var other => Activation.Find(other),
    };
}
