using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Vblora;

/// <summary>How a file holds logits [i, j, count] of which the best alone matter: their places and all but the last of their shares.</summary>
internal sealed class MixFile
{
    private readonly Weight _places; // (i, j, k)
    private readonly Weight _shares; // (i, j, k - 1)
    private readonly ScalarType _index;

    public MixFile(string name, Weight logits, int best)
    {
        var (count, (rows, columns)) = (logits.Shape[2], (logits.Shape[0], logits.Shape[1]));
        (_index, var bytes) = count < 1 << 8 ? (ScalarType.Byte, 1) : count < 1 << 15 ? (ScalarType.Int16, 2) : (ScalarType.Int32, 4);
        (Name, Logits) = (name, logits);
        _places = new Weight(rows, columns, best) { ElementSize = bytes };
        _shares = new Weight(rows, columns, best - 1);
    }

    public string Name { get; }

    public Weight Logits { get; }

    public IEnumerable<(string Name, Weight Weight)> State => [(PlacesName, _places), (SharesName, _shares)];

    private string PlacesName => $"{Name}_topk_indices";

    private string SharesName => $"{Name}_topk_weights";

    /// <summary>What is saved of the logits, by name.</summary>
    public IEnumerable<(string Name, Tensor Value)> Saved()
    {
        var (best, places) = Logits.Value.detach().topk((int)_places.Shape[2], -1);
        var shares = F.softmax(best, -1).narrow(-1, 0, _shares.Shape[2]);
        return [(PlacesName, places.to(_index)), (SharesName, shares.contiguous())];
    }

    /// <summary>Makes logits of what was loaded, if anything was: those of the other vectors are -inf.</summary>
    public void Take()
    {
        if (!_places.IsLoaded)
        {
            return;
        }

        using var scope = NewDisposeScope();
        var rest = ones(_shares.Shape[0], _shares.Shape[1], 1, device: _shares.Value.device).Minus(_shares.Value.sum(-1, keepdim: true));
        var best = cat([_shares.Value, rest], -1).log(); // [i, j, k]
        var none = full([.. Logits.Shape], TensorArithmetic.NegativeInfinity, device: best.device);
        Logits.Set(none.scatter(-1, _places.Value.to(ScalarType.Int64), best));
        _places.Unload();
        _shares.Unload();
    }
}
